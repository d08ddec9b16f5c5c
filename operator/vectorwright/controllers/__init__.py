"""Controllers: kopf handlers, thin. kopf is imported here and in cli/operator only."""
