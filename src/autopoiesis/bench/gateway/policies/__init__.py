"""Policy modules that the gateway is given: data, not imported."""
