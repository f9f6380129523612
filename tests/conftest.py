"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# How long an example takes says much about what else a machine is doing and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
