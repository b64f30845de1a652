"""MTMamba++ (TPAMI 2025): AdamW, batches of 8 (1 on each of 8 GPUs).

The rate is that of NYUD, where losses are weighted sums; PASCAL: 8e-5, Cityscapes: 1e-4, both with `LogSum`.
The schedule is the default: poly with power 0.9 per iteration, no warm-up.
"""

optimizer = dict(type="AdamW", lr=2e-5, weight_decay=1e-6, no_decay=False)
training = dict(iterations=40_000, val_interval=10_000, checkpoint_interval=5000, loss_means="rank")
