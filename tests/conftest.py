"What the tests share."
import os
os.environ["HF_HUB_OFFLINE"] = "1" # no test looks anything up on the hub
import pytest, torch
from hypothesis import HealthCheck, settings

settings.register_profile('proc-nb', deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
settings.load_profile('proc-nb')

@pytest.fixture
def g(): return torch.Generator().manual_seed(0)

@pytest.fixture(scope='module')
def browser():
    from lab_page import chromium
    if not chromium(): pytest.skip('NOT RUN: no Chromium found (set CHROMIUM to its path); nothing was tried in a browser')
    playwright = pytest.importorskip('playwright.sync_api')
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium(), args=['--no-sandbox', '--disable-gpu'])
        yield b
        b.close()
