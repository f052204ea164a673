"What the tests share."
import os
os.environ["HF_HUB_OFFLINE"] = "1" # no test looks anything up on the hub
import pytest, torch
from hypothesis import HealthCheck, settings

settings.register_profile('proc-nb', deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
settings.load_profile('proc-nb')

@pytest.fixture
def g(): return torch.Generator().manual_seed(0)
