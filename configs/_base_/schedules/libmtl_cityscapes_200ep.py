"""LibMTL on Cityscapes: Adam, 200 epochs of 2975 images in batches of 64, rate halved after 100."""

optimizer = dict(type="Adam", lr=1e-4, weight_decay=1e-5, no_decay=False)
schedule = [dict(type="StepLR", step_size=4648, gamma=0.5)]
training = dict(iterations=9297, val_interval=930, checkpoint_interval=465, loss_means="rank")
