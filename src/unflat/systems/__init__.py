"""One room for each published system: config, network, recipe, inference."""
