"""``make demo``: from an empty cluster to answers with their source, and then the promises, each with its proof."""
