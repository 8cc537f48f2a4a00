"""The service in the cloud: it computes tails and whole models, earliest deadline first."""
