"""A config becomes checked settings and objects: network, data sets, loaders."""
