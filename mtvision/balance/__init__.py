"""Rules over losses or gradients."""
