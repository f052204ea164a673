"""Faults at random moments, then a restart that must end as if nothing had happened.

    python tests/campaigns/faults.py --kind study --count 25 --seed 3 --out faults.jsonl

Everything is imported once; each run is a forked child, so a fault costs the run and not the import. A fault strikes at a random time or at a random
file operation (an audit hook counts them). Afterwards the same call is made again, and what it leaves is compared with an undisturbed run, bit by bit.
A damaged file may also be refused: then the message must name it, and without that file the same call must end as the undisturbed run did.
Only what struck counts: a signal that came after the end, or a disk that was large enough, is drawn again.
"""
import argparse, contextlib, errno, faulthandler, hashlib, io, json, os, random, re, shutil, signal, socket, subprocess, sys, tempfile, time
from pathlib import Path
import torch
from proc_nb.all import *
from proc_nb.files import load_tensors
from proc_nb.influence.ekfac import fingerprint
from proc_nb.results import keep
from proc_nb.language.model import load_lm
from proc_nb.influence import cli as influence_cli
from proc_nb.study.jobs import Store
from proc_nb.commands import demo, practise as practise_cli
from proc_nb.lab.transfer_lab import TransferLab

WORDS = ValueError, KeyError, OSError, FloatingPointError, ImportError # an error of these kinds is an answer in words; anything else is a crash
SHARED = Path(os.environ.get('PROC_NB_CAMPAIGN') or Path(tempfile.gettempdir())/f'proc-nb-campaign-{os.getuid()}')
NOBODY = 65534

# ---- the jobs: each does its work in a folder, and goes on with it when called again

def tensors(path):
    "A fingerprint of each tensor of a file of ours"
    return {k: hashlib.sha256(v.contiguous().view(-1).view(torch.uint8).numpy()).hexdigest() for k, v in load_tensors(path)[0].items()}

def without(row, *keys): return {k: v for k, v in row.items() if k not in keys}

class Job:
    processes = 1
    faults = 'kill term int disk readonly torn flip'.split()
    @property
    def name(self): return type(self).__name__.lower()
    def setup(self): "What all runs share"
    def finished(self, out): return {}
    def partly(self, out, whole): "After a fault and before the restart: what is shown must be a part of the truth"
    def files(self, out): return sorted(p for p in out.rglob('*') if p.is_file() and not p.name.startswith('.'))

class Practise(Job):
    "`proc-nb-practise identity --steps 40 --resume`"
    faults = [*Job.faults, 'twice']
    def run(self, out, rank=0): practise_cli('identity', steps=40, resume=True)
    def result(self, out):
        m = out/'_runs/practise/identity/model.safetensors'
        return dict(tensors(m), meta=without(load_model(m).meta, 'seconds'))
    def finished(self, out): return {p.name: p.read_bytes() for p in out.rglob('model.safetensors')}
    def partly(self, out, whole):
        if self.finished(out): assert self.result(out) == whole, 'model.safetensors is not the network'

class Demo(Job):
    "`proc-nb-demo --n-pairs 3 --steps 12`, with small batches; it begins anew when called again"
    faults = 'kill term int disk readonly torn flip'.split()
    def run(self, out, rank=0):
        RATES.update(batch_size=16, eval_every=3)
        demo(n_pairs=3, steps=12, out='run')
    def rows(self, out): return [without(r, 'seconds') for r in json.loads((out/'run/results.json').read_text(encoding='utf-8'))['rows']]
    def result(self, out):
        if not (out/'run/chart.png').exists(): return 'stopped' # Ctrl-C: it ends well, with what there is
        return dict(rows=self.rows(out))
    def partly(self, out, whole):
        if (out/'run/results.json').exists(): assert self.rows(out) == whole['rows'][:len(self.rows(out))], 'results.json holds other figures'

RULE, TEST = Identity(3, n_symbols=9), Haystack(3)
class Study_(Job):
    "Six runs of a study with fresh practice, in pairs"
    name, engine, faults = 'study', 'local', [*Job.faults, 'twice']
    def study(self): return Study([RULE], parts=['attn', 'all'], tests=[TEST], seeds=2, steps=24, batch_size=16, practice_steps=24, warmup=5)
    def run(self, out, rank=0): self.study().run(out/'s', engine=self.engine, members=2, workers=2, progress=False)
    def result(self, out):
        return dict(rows=[without(r, 'seconds', 'date', 'sum', 'members') for r in sorted(Store(out/'s').rows(), key=lambda r: r['id'])],
            nets={p.name: tensors(p) for p in sorted((out/'s/practised').glob('*.safetensors'))})
    def partly(self, out, whole):
        extra = [r for r in self.result(out)['rows'] if r not in whole['rows']] if (out/'s').exists() else []
        assert not extra, f'a row that is not true: {extra}'
    def finished(self, out):
        p = out/'s/rows.jsonl'
        return {i: l for i, l in enumerate(p.read_bytes().split(b'\n')[:-1])} if p.exists() else {}

class Ray(Study_):
    "The same study on two workers of Ray"
    name, engine, faults = 'ray', 'ray', 'worker worker kill int'.split()

class Language(Job):
    "Warm-up on `set`, then mathematics: 4 and 12 steps, checkpoints every 3"
    faults = [*Job.faults, 'twice']
    def setup(self): corpus('maths', block_size=32, n=2000, cache=SHARED/'cache', progress=False)
    def run(self, out, rank=0):
        data = corpus('maths', block_size=32, n=2000, cache=SHARED/'cache', progress=False)
        from proc_nb.language.pretrain import Pretraining
        from proc_nb.language.cli import _end, _watch
        p = Pretraining(data, 'set', 'tiny', steps=12, warm_steps=4, warm_batch=8, length=6, batch_size=8, eval_every=3, eval_rows=8, device='cpu', run_dir=out/'run', resume=True)
        p.start()
        self.kept = p # gloo's own end may hang in a forked child, long after everything is written
        _end(p, _watch(p, p.records()), out/'run')
    odd = 'seconds speed mfu waiting sum'.split()
    def log(self, out):
        p = out/'run/log.jsonl'
        return [without(json.loads(l), *self.odd) for l in p.read_bytes().split(b'\n')[:-1]] if p.exists() else []
    def partly(self, out, whole): assert self.log(out) == whole['log'][:len(self.log(out))], 'log.jsonl holds other figures'
    def result(self, out):
        last = json.loads((out/'run/results.json').read_text(encoding='utf-8'))['last']
        return dict(log=self.log(out), last=without(last, *self.odd), net={n: hashlib.sha256(p.detach().numpy().tobytes()).hexdigest() for n, p in load_lm(out/'run').named_parameters()})
    def files(self, out): return [p for p in super().files(out) if 'tfevents' not in p.name]

class Language2(Language):
    "The same in two processes (gloo)"
    processes, faults = 2, 'worker worker kill term int disk readonly torn flip'.split()

class Influence(Job):
    "EK-FAC factors, then the scores of 40 documents in five parts"
    faults = [*Job.faults, 'twice']
    def setup(self):
        g = torch.Generator().manual_seed(0)
        model = GPT(GPTConfig(vocab_size=11, block_size=11, n_embd=8, n_head=2, n_layer=1), seed=0)
        save_model(model, SHARED/'influence.safetensors')
        rows = torch.randint(11, (42, 9), generator=g).tolist()
        for name, part in ('docs', rows[:40]), ('queries', rows[40:]): (SHARED/f'{name}.jsonl').write_text(''.join(json.dumps(dict(tokens=r)) + '\n' for r in part), encoding='utf-8')
    def run(self, out, rank=0):
        I, o = influence_cli, out/'run'
        net, encode = I.open_model(SHARED/'influence.safetensors')
        lines, asked = I._files(net, encode, SHARED/'docs.jsonl', SHARED/'queries.jsonl')
        tracer = EKFAC(net)
        I._same(o, dict(model=fingerprint(net), seed=0))
        lines.size = 4
        tracer.fit(lines, rows=4, path=o/'factors.safetensors', every=1)
        with contextlib.redirect_stderr(io.StringIO()): I._finish(tracer, next(iter(asked)), lines, asked, o, 8, None, 4, 3)
    def result(self, out): return dict(tensors(out/'run/factors.safetensors'), top=(out/'run/top.jsonl').read_text(encoding='utf-8'))
    def finished(self, out): return {p.name: p.read_bytes() for p in out.rglob('top.jsonl')}
    def partly(self, out, whole):
        if self.finished(out): assert self.result(out) == whole, 'top.jsonl holds other figures'

class Lab(Job):
    "A lab trains in its cell and saves; an interrupt pauses it, and the cell run again goes on"
    faults = 'kill term int disk readonly torn flip'.split()
    def run(self, out, rank=0):
        lab = TransferLab(n_pairs=3, steps=10, batch_size=8, out=str(out/'run'))
        for _ in range(3):
            lab.run()
            if lab.state != 'paused': break
        if lab.state == 'failed': raise lab.runner.error
        assert [r.step for r in lab.history] == list(range(1, 11)), "steps are missing"
        lab.save()
    def result(self, out):
        return dict(tensors(out/'run/model.safetensors'), rows=(out/'run/records.csv').read_text(encoding='utf-8'))
    def partly(self, out, whole):
        p = out/'run/records.csv'
        if p.exists(): assert p.read_text(encoding='utf-8') == whole['rows'], 'records.csv holds other figures'

class Kernel(Job):
    "A lab in a kernel of its own, driven as JupyterLab drives it"
    faults = 'kill term int'.split()
    CODE = "from proc_nb.lab.transfer_lab import TransferLab; lab = TransferLab(n_pairs=3, steps=60, batch_size=32); lab.run()"
    AGAIN = f"if 'lab' not in globals(): {CODE}\nelif lab.state != 'stopped': lab.run()" # a cell that was interrupted before its lab was there is run again
    def drive(self, strike=None):
        "Losses of a lab in a fresh kernel; None if it died"
        from jupyter_client.manager import KernelManager
        km = KernelManager(kernel_name='python3')
        km.start_kernel(env=dict(os.environ, OMP_NUM_THREADS='1'))
        kc = km.client()
        kc.start_channels()
        try:
            kc.wait_for_ready(timeout=60)
            self.ask(kc, 'import proc_nb.lab.transfer_lab')
            mine = kc.execute(self.CODE)
            if strike:
                time.sleep(strike[1])
                os.kill(km.provisioner.process.pid, strike[0])
                if strike[0] != signal.SIGINT: return None if self.gone(km) else 'alive'
            self.heard(kc, mine)
            self.ask(kc, self.AGAIN)
            return self.ask(kc, 'print(repr([r.loss for r in lab.history]))')
        finally:
            kc.stop_channels()
            km.shutdown_kernel(now=True)
    def gone(self, km):
        for _ in range(100):
            if km.provisioner.process.poll() is not None: return True
            time.sleep(.1)
    def ask(self, kc, code): return self.heard(kc, kc.execute(code))
    def heard(self, kc, mine):
        "What the request `mine` prints until it is done"
        said = []
        while True:
            m = kc.get_iopub_msg(timeout=90)
            if m['parent_header'].get('msg_id') != mine: continue
            if m['msg_type'] == 'stream': said.append(m['content']['text'])
            if m['msg_type'] == 'status' and m['content']['execution_state'] == 'idle': return ''.join(said)

JOBS = {j.name: j for j in (Practise(), Demo(), Study_(), Ray(), Language(), Language2(), Influence(), Lab(), Kernel())}

# ---- running a job in a child

def hook(out, strike, at, count):
    "Count the file operations below `out` in `count`, and strike at number `at`"
    prefix = str(out)
    def heard(event, args):
        if event not in ('open', 'os.rename', 'os.remove', 'os.rmdir', 'os.mkdir'): return
        if not (isinstance(args[0], (str, bytes, os.PathLike)) and os.path.abspath(os.fsdecode(args[0])).startswith(prefix)): return
        count[0] += 1
        if count[0] == at: strike()
    sys.addaudithook(heard)

def child(job, out, status, rank=0, port=0, strike=None, at=None, plain=False):
    "Run `job` in a forked child; returns its id"
    pid = os.fork()
    if pid: return pid
    code, told = 0, {}
    try:
        os.setsid()
        fd = os.open(f'{status}.said', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(fd, 1), os.dup2(fd, 2)
        os.environ.update(HOME=str(SHARED), RAY_worker_niceness='0', PYTHONWARNINGS='ignore')
        faulthandler.register(signal.SIGUSR1)
        os.chdir(out)
        if plain and os.getuid() == 0: os.setuid(NOBODY)
        if job.processes > 1: os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job.processes), LOCAL_WORLD_SIZE=str(job.processes), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        def interrupted(*args):
            told['struck'] = 'done' not in told
            signal.default_int_handler(*args)
        signal.signal(signal.SIGINT, interrupted)
        count = [0]
        hook(out, strike or (lambda: None), at, count)
        try: job.run(out, rank)
        finally: told.update(events=count[0], done=True)
    except BaseException as e: code, told['error'] = 1, [type(e).__name__, str(e)[:2000], isinstance(e, WORDS) or isinstance(e, (KeyboardInterrupt, SystemExit)) or _peer(e)]
    finally:
        with contextlib.suppress(OSError): Path(f'{status}.{rank}').write_text(json.dumps(told), encoding='utf-8')
        os._exit(code)

def _peer(e): return isinstance(e, RuntimeError) and any(w in str(e) for w in ('onnection', 'gloo', 'peer')) # the command says this in words

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def wait(pids, seconds=90, died=None):
    "Wait for children; True if they ended by themselves. Those that a signal has killed are added to `died`; soon after one has failed the others are told to end, as `accelerate launch` does"
    end, left, last = time.time() + seconds, set(pids), None
    while left and time.time() < end:
        for p in list(left):
            ended, status = os.waitpid(p, os.WNOHANG)
            if ended: left.discard(p)
            if ended and status:
                if os.WIFSIGNALED(status) and died is not None: died.append(p)
                last = last or time.time() + 15
        if last and time.time() > last:
            for p in left: os.kill(p, signal.SIGTERM)
            last = None
        time.sleep(.01)
    for p in left: os.kill(p, signal.SIGUSR1) # says where it hangs
    time.sleep(bool(left))
    for p in left:
        with contextlib.suppress(ProcessLookupError): os.killpg(p, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError): os.waitpid(p, 0)
    return not left

def told(status, job):
    found = []
    for r in range(job.processes):
        p = Path(f'{status}.{r}')
        found.append(json.loads(p.read_text(encoding='utf-8')) if p.exists() and p.stat().st_size else None)
        p.unlink(missing_ok=True)
    return found

def start(job, out, status, **kwargs):
    port, at = free_port() if job.processes > 1 else 0, kwargs.pop('at', None)
    rank = kwargs.pop('on', 0)
    return [child(job, out, status, r, port, at=at if r == rank else None, **kwargs) for r in range(job.processes)]

def undisturbed(job, folder):
    "Seconds, file operations and result of a run that nothing happens to"
    out, status = folder/'whole', folder/'whole.status'
    out.mkdir(parents=True)
    begun = time.time()
    fine = wait(start(job, out, status), 240)
    got = told(status, job)
    if not fine or any(t is None or 'error' in t for t in got): raise SystemExit(f'{job.name}: the undisturbed run failed: {got} {Path(f"{status}.said").read_text(encoding="utf-8")[-2000:]}')
    size = sum(p.stat().st_size for p in out.rglob('*') if p.is_file())
    return dict(seconds=time.time() - begun, events=[t['events'] for t in got], result=job.result(out), size=size)

# ---- the faults

class Disk:
    "A folder on a disk of its own, of a size that can be changed; None of it where mounting is not allowed"
    def __init__(self, path, size):
        self.path, self.size = path, size
        path.mkdir()
        self.own = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={max(4096, size)},mode=777', 'tmpfs', path], capture_output=True).returncode == 0
    def grow(self):
        if self.own: subprocess.run(['mount', '-o', 'remount,size=64m', self.path], check=True)
    def close(self):
        if self.own: subprocess.run(['umount', '-l', self.path])

def damage(job, out, how, r):
    "Cut a random file short or turn one of its bits; returns what was done"
    files = [p for p in job.files(out) if p.stat().st_size]
    if not files: return None
    p = r.choice(files)
    data = bytearray(p.read_bytes())
    if how == 'torn': data = data[:r.randrange(len(data))]
    else:
        at = r.randrange(len(data)) if r.random() < .5 else r.randrange(min(len(data), 400))
        data[at] ^= 1 << r.randrange(8)
    p.write_bytes(data)
    return str(p.relative_to(out))

def writable(out, yes):
    for d in [out, *(p for p in out.rglob('*') if p.is_dir())]:
        with contextlib.suppress(FileNotFoundError): d.chmod(0o777 if yes else 0o555)

def strike(job, fault, out, status, whole, r):
    "Run `job` and let `fault` happen to it; returns how the run ended, and what was done"
    sig = dict(kill=signal.SIGKILL, torn=signal.SIGKILL, flip=signal.SIGKILL, term=signal.SIGTERM, int=signal.SIGINT, worker=signal.SIGKILL).get(fault)
    by_event, on = fault not in ('disk', 'readonly', 'twice') and job.name != 'ray' and r.random() < .5, r.randrange(job.processes)
    kwargs = dict(on=on, plain=fault == 'readonly')
    if by_event:
        kwargs.update(at=r.randint(1, whole['events'][on]), strike=lambda: os.kill(os.getpid(), sig))
        when = f'file operation {kwargs["at"]} of {whole["events"][on]}'
    elif fault == 'disk' and not whole['mounted']:
        def full(): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        kwargs.update(at=r.randint(1, whole['events'][on]), strike=full)
        when = f'file operation {kwargs["at"]} of {whole["events"][on]}'
    pids, died, victim = start(job, out, status, **kwargs), [], None
    if not by_event and fault != 'disk':
        delay = r.uniform(0, whole['seconds'])
        when = f'{delay:.2f} of {whole["seconds"]:.2f} s'
        time.sleep(delay)
        if fault == 'readonly': writable(out, False)
        elif fault == 'twice':
            victim = not os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT)
            pids += start(job, out, f'{status}.second')
        elif fault == 'worker' and job.name == 'ray': victim = ray_worker(pids[0], sig)
        else:
            with contextlib.suppress(ProcessLookupError): os.kill(pids[on], sig)
    elif fault == 'disk' and whole['mounted']: when = f'{whole["room"]:,} of {whole["size"]:,} bytes'
    ended = wait(pids, 120, died)
    if fault == 'readonly': writable(out, True)
    got = told(status, job) + (told(f'{status}.second', job) if fault == 'twice' else [])
    what = dict(when=when, ended=ended, runs=got)
    if fault in ('torn', 'flip'): what['damaged'] = damage(job, out, fault, r)
    return dict(what, struck=struck(fault, what, died, victim))

def struck(fault, what, died, victim):
    "Did the fault happen at all?"
    if fault in ('torn', 'flip'): return what['damaged'] is not None
    if fault == 'int': return any(t and t.get('struck') for t in what['runs'])
    if fault in ('disk', 'readonly'): return any(t and 'error' in t for t in what['runs'])
    return bool(died or victim)

def ray_worker(driver, sig):
    "Kill one of the Ray workers that `driver` has"
    import psutil
    try: own = [p for p in psutil.Process(driver).children(recursive=True) if 'ray::' in ' '.join(p.cmdline()[:1])]
    except psutil.Error: own = []
    busy = [p for p in own if 'learn' in ' '.join(p.cmdline()[:1])] or own
    if not busy: return None
    os.kill(busy[0].pid, sig)
    return busy[0].pid

def one(job, fault, folder, whole, r):
    "One fault, and everything after it; returns a row of the report, or None if it did not strike"
    out, status = folder/'run', folder/'status'
    for p in folder.glob('status*'): p.unlink()
    if fault == 'disk':
        whole = dict(whole, room=int(r.uniform(.02, 1.) * whole['size']))
        disk = Disk(out, whole['room'])
        whole['mounted'] = disk.own
    else: out.mkdir()
    out.chmod(0o777)
    try:
        what = strike(job, fault, out, status, whole, r)
        errors = [t['error'] for t in what['runs'] if t and 'error' in t]
        row = dict(job=job.name, fault=fault, when=what['when'], damaged=what.get('damaged'), said=[f'{e[0]}: {e[1][:160]}' for e in errors])
        if not what['struck']: return None
        if not what['ended']: return dict(row, outcome='violated', why='the run hung after the fault')
        bad = [e for e in errors if not e[2]]
        if bad: return dict(row, outcome='violated', why=f'the fault was answered by a crash: {bad[0][0]}: {bad[0][1][:300]}')
        if not what.get('damaged'): job.partly(out, whole['result'])
        before = {} if what.get('damaged') else job.finished(out)
        if fault == 'disk': disk.grow()
        return dict(row, **after(job, out, status, whole, before, what.get('damaged')))
    except AssertionError as e: return dict(row, outcome='violated', why=str(e))
    finally:
        if fault == 'disk': disk.close()
        shutil.rmtree(out, ignore_errors=True)

def after(job, out, status, whole, before, damaged, refused=()):
    "Start again; what came of it"
    ended, got = wait(start(job, out, status), 120), told(status, job)
    if not ended: return dict(outcome='violated', why='the restart hung')
    errors = [t['error'] if t and 'error' in t else None if t else ['died', 'without a word', False] for t in got]
    errors = [e for e in errors if e]
    if errors:
        e = errors[0]
        if not e[2]: return dict(outcome='violated', why=f'the restart crashed: {e[0]}: {e[1][:300]}')
        named = remedy(out, e[1]) if damaged and len(refused) < 3 else None
        if not named: return dict(outcome='violated', why=f'the restart was refused: {e[0]}: {e[1][:300]}')
        return after(job, out, status, whole, {}, damaged, (*refused, f'{e[0]}: {e[1][:160]}'))
    want = whole['result']
    try: now = job.result(out)
    except ValueError as e: # a practised network that no run needs any more is refused when somebody reads it
        if not (damaged and 'nets' in want and remedy(out, str(e))): raise
        now, refused = job.result(out), (*refused, str(e)[:160])
        want = dict(want, nets={k: v for k, v in want['nets'].items() if k in now['nets']})
    if refused and damaged.endswith('log.jsonl'): now, want = (without(x, 'log') for x in (now, want)) # lines of a log that was lost cannot be made again
    if now != want: return dict(outcome='violated', why=f'the result differs: {difference(want, now)}')
    lost = [k for k, v in before.items() if job.finished(out).get(k) != v]
    if lost: return dict(outcome='violated', why=f'finished work was lost or changed: {lost}')
    left = [p.name for p in out.rglob('.*') if p.is_file() and p.name != '.lock']
    return dict(outcome='refused in words, then equal' if refused else 'equal', refused=list(refused), left=left)

def remedy(out, message):
    "Take away what the message names: a line of a file, a folder, or a file"
    asked = re.search(r'Remove ([^\s:;,]+)', message)
    for word in ([asked[1]] if asked else []) + re.findall(r'[^\s:;,]*/[^\s:;,]*', message):
        path = out/word.rstrip('.')
        if not path.exists() or path == out: continue
        line = re.search(re.escape(word) + r', line (\d+)', message)
        if line:
            lines = path.read_bytes().split(b'\n')
            path.write_bytes(b'\n'.join(lines[:int(line[1]) - 1] + lines[int(line[1]):]))
        elif path.is_dir(): shutil.rmtree(path)
        else: path.unlink()
        return path

def difference(a, b, at=''):
    if isinstance(a, dict) and isinstance(b, dict):
        for k in {**a, **b}:
            if a.get(k) != b.get(k): return difference(a.get(k), b.get(k), f'{at}.{k}')
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            if x != y: return difference(x, y, f'{at}[{i}]')
    return f'{at}: {str(a)[:150]} / {str(b)[:150]}'

# ---- the kernel, which has no folder

def in_kernel(job, fault, whole, r):
    sig, delay = dict(kill=signal.SIGKILL, term=signal.SIGTERM, int=signal.SIGINT)[fault], r.uniform(.2, 1.5)
    got = job.drive((sig, delay))
    row = dict(job=job.name, fault=fault, when=f'{delay:.2f} s')
    if fault != 'int' and got is not None: return dict(row, outcome='violated', why='the kernel stayed')
    again = got if fault == 'int' else job.drive()
    return dict(row, outcome='equal') if again == whole else dict(row, outcome='violated', why=f'other losses: {str(again)[:80]} / {whole[:80]}')

def campaign(kind, count, seed, say=print, keep=lambda row: None):
    "Rows of `count` faults in one kind of job; each is kept as it comes"
    job, r, rows = JOBS[kind], random.Random(f'{kind} {seed}'), []
    SHARED.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(dir=SHARED, prefix=f'{kind}-'))
    folder.chmod(0o777)
    SHARED.chmod(0o777)
    try:
        pid = os.fork()
        if not pid:
            try: job.setup()
            except BaseException as e:
                print(repr(e), flush=True)
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, 'the set-up failed'
        subprocess.run(['chmod', '-R', 'a+rX', SHARED])
        whole = job.drive() if kind == 'kernel' else undisturbed(job, folder)
        order = [f for _ in range(count // len(job.faults) + 1) for f in r.sample(job.faults, len(job.faults))][:count]
        for i, fault in enumerate(order):
            begun, missed, row = time.time(), -1, None
            while row is None and missed < 12:
                missed += 1
                own = random.Random(f'{kind} {seed} {i} {missed}')
                row = in_kernel(job, fault, whole, own) if kind == 'kernel' else one(job, fault, folder, whole, own)
            if row is None: row = dict(job=job.name, fault=fault, outcome='violated', why='it never struck')
            rows.append(dict(row, seed=seed, number=i, missed=missed, took=round(time.time() - begun, 2)))
            keep(rows[-1])
            if row['outcome'] == 'violated': say(json.dumps(rows[-1]))
    finally: shutil.rmtree(folder, ignore_errors=True)
    return rows

if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler) # in the background it may be ignored, also by what is started from here
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--kind', choices=[*JOBS], required=True)
    p.add_argument('--count', type=int, default=12)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--out', help='file of JSON lines to add the faults to')
    a = p.parse_args()
    def keep(row):
        if not a.out: return
        with open(a.out, 'a', encoding='utf-8') as f: f.write(json.dumps(row) + '\n')
    rows = campaign(a.kind, a.count, a.seed, keep=keep)
    bad = sum(r['outcome'] == 'violated' for r in rows)
    print(f'{a.kind}: {len(rows)} faults, {bad} promises violated, {sum(r["took"] for r in rows) / max(1, len(rows)):.1f} s each')
    sys.exit(bad > 0)
