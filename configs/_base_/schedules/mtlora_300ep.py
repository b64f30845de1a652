"""MTLoRA (CVPR 2024) on PASCAL: AdamW, 300 epochs, batches of 32, cosine after a warm-up of 20 epochs.

Epochs are counted as whole batches: 4998 images, batches of 32, 156 iterations an epoch. The rate is 5e-4 at
batches of 512, scaled down. Precision differs: fp16 there, bf16 here.
"""

optimizer = dict(type="AdamW", lr=3.125e-5, weight_decay=0.05)
schedule = [
    dict(type="LinearLR", start_factor=1.6e-2, end=3120),
    dict(type="CosineAnnealingLR", eta_min=5e-6, begin=3120, end=46800),
]
training = dict(
    iterations=46_800,
    clip_grad=5.0,
    precision="bf16",
    val_interval=10_000,
    checkpoint_interval=5000,
    loss_means="rank",
)
