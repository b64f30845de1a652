"""How a batch becomes gradients for each kind of balancer."""
