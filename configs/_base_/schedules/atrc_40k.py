"""ATRC (ICCV 2021): SGD, batches of 8 in total.

The rate is that of NYUD; PASCAL with HRNet-18: 5e-3. The schedule is the default: poly with power 0.9 per
iteration, no warm-up.
"""

optimizer = dict(type="SGD", lr=1e-2, momentum=0.9, weight_decay=5e-4, no_decay=False)
training = dict(iterations=40_000, val_interval=10_000, checkpoint_interval=5000, loss_means="rank")
