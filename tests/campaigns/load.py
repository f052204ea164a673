"""What grows when the package is used for long: memory, threads, file handles and disk, as curves.

    python tests/campaigns/load.py --what updates --scale 1 --out load.jsonl

`--scale 1` is the whole load (10,000 updates, 50 restarts, a study of 10,000 runs, an hour of a lab); a smaller scale is that share of it. Fails if the second half grows
by more than its share of the kind's allowance, and no less than `NOISE`.
"""
import argparse, contextlib, io, json, shutil, subprocess, sys, tempfile, time
from pathlib import Path
import psutil, torch
from proc_nb.all import *
from proc_nb.study import grid as study
from proc_nb.study.jobs import Store
from proc_nb.commands import demo
from proc_nb.lab.transfer_lab import TransferLab

torch.set_num_threads(1)
ME = psutil.Process()
def disk(folder): return sum(p.stat().st_size for p in Path(folder).rglob('*') if p.is_file()) if folder else 0
def now(done, folder=None): return dict(done=done, mib=round(ME.memory_info().rss / 2**20, 1), threads=ME.num_threads(), handles=ME.num_fds(), disk=disk(folder), seconds=round(time.time() - BEGUN, 1))
BEGUN = time.time()

def updates(n):
    "A lab's chart, legend, bar and line of figures drawn again and again"
    lab = TransferLab(n_pairs=3, steps=12, batch_size=8)
    lab.run()
    for i in range(n + 1):
        lab.runs[0].lines['mine'].append(dict(lab.runs[0].lines['mine'][-1], step=12 + i))
        lab._draw()
        if i % max(1, n // 20) == 0: yield now(i)

def restarts(n):
    "A short demo, again and again in one process"
    RATES.update(batch_size=16, eval_every=3)
    d = Path(tempfile.mkdtemp())
    for i in range(n + 1):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()): demo(n_pairs=3, steps=6, out=str(d))
        yield now(i, d)
    shutil.rmtree(d)

def runs(n):
    "A study of tiny runs, in pieces as a person would run it"
    d = Path(tempfile.mkdtemp())
    def grid(k): return study.Study(['identity'], ['attn'], [Haystack(1)], seeds=k, steps=1, batch_size=2, practice='zoo', controls=[])
    for k in sorted({max(1, n * i // 10) for i in range(1, 11)}):
        grid(k).run(d, progress=False)
        yield now(k, d)
    assert len(Store(d).rows()) == n and not any((d/'flying').glob('*'))
    shutil.rmtree(d)

def lab(seconds):
    "A lab left running, looked at now and then"
    l = TransferLab(n_pairs=3, steps=10**6, batch_size=8, control=False)
    l.start()
    end = time.time() + seconds
    while time.time() < end:
        time.sleep(seconds / 20)
        l._draw()
        assert l.state == 'running', l.message.value
        yield now(len(l.history))
    l.stop()
    l.close()

def together(n):
    "Two labs and a study at once: each ends as if alone"
    def small(seed): return TransferLab(n_pairs=3, steps=20, batch_size=8, seed=seed)
    alone = [small(s) for s in (0, 1)]
    for l in alone: l.run()
    for i in range(n):
        d = Path(tempfile.mkdtemp())
        code = f"from proc_nb.all import *\nprint([(r['seed'], r['accuracy']) for r in Study(['identity'], ['attn'], [Haystack(3)], seeds=2, steps=20, batch_size=8, practice='zoo').run({str(d)!r}, progress=False)])"
        other = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
        both = [small(s) for s in (0, 1)]
        for l in both: l.start()
        said = other.communicate()[0]
        for l in both:
            l.runner.thread.join(300)
            assert l.state == 'finished', l.message.value
        assert [[r.loss for r in l.history] for l in both] == [[r.loss for r in l.history] for l in alone], 'a lab was disturbed'
        together.said = getattr(together, 'said', said)
        assert said == together.said and said, 'the study was disturbed'
        for l in both: l.close()
        shutil.rmtree(d)
        yield now(i)

# how many, and what the second half of them may grow by: MiB of memory and bytes of disk
WHAT = dict(updates=(updates, 10_000, 10, 0), restarts=(restarts, 50, 8, 4096), study=(runs, 10_000, 60, 6 * 2**20),
    lab=(lab, 3600, 40, 0), together=(together, 20, 8, 0))
NOISE = 16 # MiB: what the allocator may take while it warms up

def measured(what, scale):
    make, whole, mib, size = WHAT[what]
    n = max(2, int(whole * scale))
    curve = list(make(n))
    half = curve[len(curve) // 2:]
    grown = {k: round(half[-1][k] - half[0][k], 1) for k in ('mib', 'threads', 'handles', 'disk')}
    may = dict(mib=max(NOISE, mib * scale), threads=2, handles=2, disk=size * max(scale, .1))
    flat = all(grown[k] <= may[k] for k in may)
    return dict(what=what, about=make.__doc__, load=n, whole=whole, seconds=curve[-1]['seconds'], curve=curve, second_half=grown, flat=flat)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--what', choices=[*WHAT], required=True)
    p.add_argument('--scale', type=float, default=1)
    p.add_argument('--out')
    a = p.parse_args()
    row = measured(a.what, a.scale)
    if a.out:
        with open(a.out, 'a', encoding='utf-8') as f: f.write(json.dumps(row) + '\n')
    print({k: v for k, v in row.items() if k != 'curve'}, row['curve'][0], row['curve'][-1])
    sys.exit(not row['flat'])
