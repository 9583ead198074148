"""Image towers as plain nn.Modules, useful without Lightning."""
