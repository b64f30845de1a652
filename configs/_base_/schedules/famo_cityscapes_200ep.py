"""FAMO on Cityscapes: Adam, 200 epochs of 2975 images in batches of 8, rate halved after 100."""

optimizer = dict(type="Adam", lr=1e-4, no_decay=False)
schedule = [dict(type="StepLR", step_size=37188, gamma=0.5)]
training = dict(
    iterations=74_375, val_interval=7437, checkpoint_interval=3719, keep_checkpoints=10, loss_means="rank"
)
