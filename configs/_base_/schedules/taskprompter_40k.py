"""TaskPrompter, MLoRE, TaskDiffusion: as InvPT with clipped gradients, batches of 4 (2 on each of 2 GPUs).

On NYUD-v2 with ViT-L the rate is 1e-5. The schedule is the default: poly with power 0.9 per iteration, no
warm-up.
"""

optimizer = dict(type="Adam", lr=2e-5, weight_decay=1e-6, no_decay=False)
training = dict(
    iterations=40_000, clip_grad=10.0, val_interval=10_000, checkpoint_interval=5000, loss_means="rank"
)
