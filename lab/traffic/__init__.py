"""What is sent: probes, scenarios, workloads, and who sends them."""
