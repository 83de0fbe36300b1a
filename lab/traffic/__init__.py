"""The traffic: probes, scenarios, workloads and clients."""
