"""DeMT (AAAI 2023) and MQTransformer with Swin: SGD, batches of 8 in total.

With HRNet-18 they use ATRC's schedule. The schedule is the default: poly with power 0.9 per iteration, no
warm-up.
"""

optimizer = dict(type="SGD", lr=1e-3, momentum=0.9, weight_decay=5e-4, no_decay=False)
training = dict(iterations=40_000, val_interval=10_000, checkpoint_interval=5000, loss_means="rank")
