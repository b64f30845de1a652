"""BridgeNet (TPAMI 2025), ViT-B on NYUD: batches of 6 (3 on each of 2 GPUs), clipped gradients.

ViT-L: weight decay 5e-6. PASCAL: 40 000 iterations, batches of 8. The schedule is the default: poly with
power 0.9 per iteration, no warm-up.
"""

optimizer = dict(type="Adam", lr=2e-5, weight_decay=1e-6, no_decay=False)
training = dict(
    iterations=20_000, clip_grad=10.0, val_interval=10_000, checkpoint_interval=5000, loss_means="rank"
)
