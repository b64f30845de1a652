"""Parts for mtvision; importing this package registers them."""

from mylab import balancer, dataset, decoder, loss, metric, task  # noqa: F401

mtvision_requires = ">=0.1"
