"""A real node beside the control plane: what runs pods on this machine, in namespaces of its own."""
