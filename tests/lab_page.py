"A real JupyterLab in a headless Chromium, for the tests of the live widgets."
import json, os, shutil, socket, subprocess, sys, time, urllib.request
from contextlib import contextmanager
from pathlib import Path

ARTEFACTS = Path(__file__).parent.parent/'_artifacts'

def chromium():
    "The browser to drive: CHROMIUM, or the first one found; None if there is none"
    names = [os.environ.get('CHROMIUM'), 'chromium', 'chromium-browser', 'google-chrome', 'chrome', '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome']
    return next((p for n in names if n and (p := shutil.which(n))), None)

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def notebook(*cells):
    "A notebook of code cells"
    made = [dict(cell_type='code', id=f'cell{i}', metadata={}, source=c, outputs=[], execution_count=None) for i, c in enumerate(cells)]
    return dict(cells=made, metadata=dict(kernelspec=dict(display_name='python3', language='python', name='python3')), nbformat=4, nbformat_minor=5)

SETTINGS = {'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False), 'notebook-extension/tracker': dict(windowingMode='none', autoStartDefault=True)}

def _settings(home):
    for name, values in SETTINGS.items():
        path = home/'settings'/'@jupyterlab'/f'{name}.jupyterlab-settings'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding='utf-8')

@contextmanager
def jupyterlab(home):
    "A JupyterLab server of its own on this machine; gives its address"
    port, root = free_port(), home/'books'
    root.mkdir(parents=True, exist_ok=True)
    _settings(home)
    env = {**os.environ, 'JUPYTER_CONFIG_DIR': str(home/'config'), 'JUPYTER_RUNTIME_DIR': str(home/'runtime'), 'JUPYTERLAB_SETTINGS_DIR': str(home/'settings'),
        'JUPYTERLAB_WORKSPACES_DIR': str(home/'workspaces'), 'IPYTHONDIR': str(home/'ipython'), 'PYTHONPATH': str(Path(__file__).parent.parent)}
    cmd = [sys.executable, '-m', 'jupyterlab', '--no-browser', f'--port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=', '--ServerApp.password=', '--allow-root',
        f'--ServerApp.root_dir={root}', '--LabApp.expose_app_in_browser=True', '--LabApp.extension_manager=readonly', '--ServerApp.disable_check_xsrf=True']
    log = open(home/'server.log', 'w', encoding='utf-8')
    server = subprocess.Popen(cmd, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f'http://127.0.0.1:{port}/api', timeout=1)
                break
            except OSError: time.sleep(.25)
        else: raise RuntimeError((home/'server.log').read_text(encoding='utf-8')[-2000:])
        yield f'http://127.0.0.1:{port}', root
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()
        log.close()

class LabPage:
    "A page of JupyterLab with one notebook; remembers console errors and requests that leave the machine"
    def __init__(self, browser, url, root, width=1400, height=1300, dark=False, side_bar=False):
        self.url, self.root, self.errors, self.outside = url, root, [], []
        self.page = browser.new_page(viewport=dict(width=width, height=height))
        self.page.on('console', lambda m: self.errors.append(m.text) if m.type == 'error' else None)
        self.page.on('pageerror', lambda e: self.errors.append(str(e)))
        self.page.on('request', lambda r: None if r.url.startswith((url, 'data:', 'blob:')) else self.outside.append(r.url))
        self.dark, self.side_bar = dark, side_bar
    def command(self, name, args='{}'): self.page.evaluate(f"() => {{ window.jupyterapp.commands.execute('{name}', {args}) }}")
    def open(self, name, *cells):
        (self.root/name).write_text(json.dumps(notebook(*cells)), encoding='utf-8')
        self.page.goto(f'{self.url}/lab/tree/{name}?reset')
        self.page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=60_000)
        self.page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'", timeout=60_000)
        self.page.evaluate('() => window.jupyterapp.shell.currentWidget.sessionContext.ready')
        if self.dark: self.command('apputils:change-theme', "{theme: 'JupyterLab Dark'}")
        if self.page.locator('#jp-left-stack').is_visible() != self.side_bar: self.command('application:toggle-left-area')
        return self
    def run_all(self): self.command('notebook:run-all-cells')
    def ask(self, code):
        "What the kernel prints when it runs this"
        return self.page.evaluate("""async code => {
            const asked = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code})
            let said = ''
            asked.onIOPub = m => { said += m.content.text ?? m.content.evalue ?? '' }
            await asked.done
            return said }""", code)
    def button(self, name, nth=0): return self.page.locator(f'button.jupyter-button:text-is("{name}")').nth(nth)
    def part(self, name, nth=0): return self.page.locator(f'button.pnb-part:has-text("{name}")').nth(nth)
    def status(self): return self.page.locator('.pnb-status').first
    def step(self, nth=0):
        "The step that the panel shows; 0 before there is one"
        found = self.page.locator('.pnb-status').nth(nth)
        text = found.inner_text() if found.count() else ''
        return int(text.split('step ')[1].split(' of')[0].replace(',', '')) if 'step ' in text else 0
    def points(self): return self.page.locator('.pnb .vega-embed .mark-symbol path[aria-roledescription="point"]').count()
    def wait(self, what, seconds=60):
        "Wait until `what()` holds"
        until = time.time() + seconds
        while not what():
            if time.time() > until:
                self.shoot('waited_in_vain')
                raise AssertionError(f'waited {seconds} s in vain; the page shows: {self.page.locator(".pnb").first.inner_text()[:600]}')
            self.page.wait_for_timeout(100)
    def shoot(self, name):
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=str(ARTEFACTS/f'{name}.png'))
