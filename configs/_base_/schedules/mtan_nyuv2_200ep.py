"""MTAN, Nash-MTL, FAMO on NYUv2: Adam, 200 epochs of 795 images in batches of 2, rate halved after 100.

Nash-MTL and FAMO train method parameters with rate 0.025 (`balancer_lr`).
"""

optimizer = dict(type="Adam", lr=1e-4, no_decay=False)
schedule = [dict(type="StepLR", step_size=39750, gamma=0.5)]
training = dict(
    iterations=79_500, val_interval=7950, checkpoint_interval=3975, keep_checkpoints=10, loss_means="rank"
)
