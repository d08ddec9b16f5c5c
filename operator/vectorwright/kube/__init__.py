"""The Kubernetes API: client, leader election, Secrets, status, events."""
