"""Broken, foreign and hostile input to everything that reads a file or takes a user's text.

    python tests/campaigns/fuzz.py --target model --seconds 60 --seed 1        coverage-guided, with atheris where it is installed
    python tests/campaigns/fuzz.py --target all --seconds 10 --plain           without it

A target is a function of bytes. It may answer with an error in words (`WORDS`, with a message); anything else is a finding: another exception, more than `MEMORY`
bytes, more than `LIMIT` seconds.
"""
import argparse, contextlib, copy, hashlib, io, json, os, random, resource, shutil, signal, struct, sys, tempfile, time, traceback, warnings
from pathlib import Path
try: import atheris
except ImportError: atheris = None
guided = atheris is not None and '--plain' not in sys.argv and __name__ == '__main__'
with atheris.instrument_imports(include=['proc_nb']) if guided else contextlib.nullcontext():
    import torch
    from proc_nb.all import *
    from proc_nb.checks import NameMissing
    from proc_nb.files import load_tensors
    from proc_nb.language.corpus import Corpus
    from proc_nb.lego.task import Group
    from proc_nb.tasks.controls import warm_task
    from proc_nb.train.practice import Zoo
    from proc_nb.language.model import checkpoints, load_lm
    from proc_nb import cli, commands
    from proc_nb.language import tokenizers as corpora_tokenizers, sources as corpora_sources, corpus as corpora, plan as lm_plan, pretrain as lm
    from proc_nb.influence import cli as influence_cli
    from proc_nb.study import grid as study, cli as study_cli
    from proc_nb.study.run import parse_control
    from proc_nb.study.jobs import Store

WORDS = ValueError, KeyError, OSError, FloatingPointError, ImportError
LIMIT, MEMORY = 10, 2**31
ROOT = Path(tempfile.mkdtemp(prefix='proc-nb-fuzz-'))
EVIL = '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', '\x00', '../../etc/passwd', '{{7*7}}', "__import__('os').abort()", '١٢', '\ud800', 'a' * 3000

class Bytes:
    "Values drawn from bytes"
    def __init__(self, data): self.data, self.at = data, 0
    def byte(self):
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0
    def int(self): return [0, 1, 2, 3, -1, 5, 30, 255, 1000, 10**6, 10**9, 2**31, 2**63, 2**64, 10**30, -10**9][self.byte() & 15] + (self.byte() & 3) - 1
    def choice(self, xs): return xs[self.byte() % len(xs)]
    def text(self):
        k = self.byte()
        if k < 128: return EVIL[k % len(EVIL)]
        self.at += k % 24
        return self.data[self.at - k % 24:self.at].decode('latin1')
    def value(self, depth=0):
        k = self.byte() % (8 if depth > 3 else 10)
        if k < 3: return self.int()
        if k < 5: return self.text()
        if k < 8: return [None, True, False, 1.5, float('nan'), float('inf'), -0.0, 1e-300][self.byte() & 7]
        if k == 8: return [self.value(depth + 1) for _ in range(self.byte() & 3)]
        return {self.text(): self.value(depth + 1) for _ in range(self.byte() & 3)}
    def spoil(self, x, depth=0):
        "A copy of JSON in which something is replaced, added or left out"
        k = self.byte()
        if isinstance(x, dict) and x and k % 8:
            x, key = dict(x), self.choice(list(x))
            if k % 16 == 1: del x[key]
            elif k % 16 == 2: x[self.text()] = self.value()
            else: x[key] = self.spoil(x[key], depth + 1)
            return x
        if isinstance(x, list) and x and k % 8:
            x, i = list(x), self.byte() % len(x)
            x[i] = self.spoil(x[i], depth + 1)
            return x
        return self.value(depth)
    def mutate(self, data):
        "Bytes of a valid file with a few changes"
        data = bytearray(data)
        for _ in range(1 + self.byte() % 4):
            k, at = self.byte() % 5, (self.byte() << 8 | self.byte()) % max(1, len(data))
            if k == 0: data[at:at + 1] = bytes([self.byte()])
            elif k == 1: data = data[:at]
            elif k == 2: data[at:at] = bytes([self.byte()]) * self.byte()
            elif k == 3: data[:8] = struct.pack('<Q', [2**40, 2**63, 2**64 - 1, len(data), 0, 100_000_001][self.byte() % 6])
            elif k == 4: del data[at:at + self.byte()]
        return bytes(data)

class Unchanged(Bytes):
    "The same byte again and again, and valid files as they are: with it a target must get in"
    def __init__(self, k): self.k, self.data = k, b''
    def byte(self): return self.k
    def spoil(self, x, depth=0): return x
    def mutate(self, data): return data

def dumps(x): return json.dumps(x).encode()

# ---- what valid files look like

def valid():
    v = argparse.Namespace()
    v.model = GPT(GPTConfig(vocab_size=12, block_size=11, n_embd=8, n_head=2))
    save_model(v.model, ROOT/'m.safetensors', task=Identity(length=5, n_symbols=9), steps=3, accuracy=.5)
    v.tensors, v.meta = load_tensors(ROOT/'m.safetensors')
    v.file = (ROOT/'m.safetensors').read_bytes()
    tracer = EKFAC(v.model).fit(Identity(5, n_symbols=9).sample(8, torch.Generator().manual_seed(0)))
    tracer.save(ROOT/'f.safetensors')
    v.factors = load_tensors(ROOT/'f.safetensors')
    list(fit(copy.deepcopy(v.model), Identity(5, n_symbols=9), 2, 4, run_dir=ROOT/'run', eval_rows=4))
    v.checkpoint = load_tensors(ROOT/'run/checkpoint.safetensors')
    v.corpus = corpus('maths', block_size=32, n=400, cache=ROOT/'corpora', progress=False)
    v.tokens = (v.corpus.folder/v.corpus.shards['train'][0]['file']).read_bytes()
    v.row = dict(id='a', test='haystack', rule='identity', parts='attn', embed='random', control='practised', practice='fresh', practice_steps=3, rates='fresh', steps=3, batch_size=4,
        accuracy=.5, found=None, curve=[[3, .5]], seed=0, seconds=1.)
    v.tokenizer = (corpus('maths', 'bpe:300', block_size=16, n=200, cache=ROOT/'corpora', progress=False).folder/'tokenizer.json').read_bytes()
    run = lm.Pretraining(v.corpus, None, 'tiny', steps=1, batch_size=2, eval_every=1, eval_rows=2, device='cpu', run_dir=ROOT/'lm')
    for _ in run.records(): pass
    v.run = json.loads((checkpoints(ROOT/'lm/language')[-1]/'run.json').read_text(encoding='utf-8'))
    v.released = {k: v.T if k.endswith(('c_attn.weight', 'c_proj.weight', 'c_fc.weight')) else v for k, v in v.model.state_dict().items()}
    return v

V = None

# ---- targets

def header(file, tensors, meta):
    "A file of ours with any header at all, and no sum"
    from safetensors.torch import save_file
    save_file(tensors, file, dict(proc_nb=json.dumps(meta)))

def model(b):
    (ROOT/'a.safetensors').write_bytes(b.mutate(V.file))
    load_model(ROOT/'a.safetensors')

def model_header(b):
    header(ROOT/'h.safetensors', V.tensors, b.spoil(V.meta))
    load_model(ROOT/'h.safetensors')

def checkpoint(b):
    tensors, meta = V.checkpoint
    tensors = dict(tensors)
    k = b.choice([None, *tensors])
    if k: tensors[k] = b.choice([torch.zeros(0), torch.zeros(3, dtype=torch.int64), torch.zeros(2, 2), tensors[k]])
    d = ROOT/'c'
    d.mkdir(exist_ok=True)
    header(d/'checkpoint.safetensors', tensors, b.spoil(meta))
    fit(GPT(GPTConfig(vocab_size=12, block_size=11, n_embd=8, n_head=2)), Identity(5, n_symbols=9), 2, 4, run_dir=d, resume=True, eval_rows=4)

def factors(b):
    header(ROOT/'g.safetensors', V.factors[0], b.spoil(V.factors[1]))
    EKFAC.load(ROOT/'g.safetensors', V.model)

def zoo_sums(b):
    d = ROOT/'z'
    d.mkdir(exist_ok=True)
    (d/'m.safetensors').write_bytes(V.file)
    good = {'m': hashlib.sha256(V.file).hexdigest()}
    (d/'SHA256.json').write_bytes(b.mutate(dumps(good)) if b.byte() & 1 else dumps(b.spoil(good)))
    z = Zoo(d)
    repr(z), [z[k] for k in z]

def rows(b):
    s = Store(ROOT/'s')
    s.out.mkdir(exist_ok=True)
    row = b.spoil(V.row)
    s.path.write_bytes(b.mutate(dumps(V.row) + b'\n' + dumps(row) + b'\n') if b.byte() & 1 else dumps(row) + b'\n')
    table = s.rows()
    str(table), table._repr_html_()

def stored_file(b):
    d = ROOT/'r'
    d.mkdir(exist_ok=True)
    (d/'x.json').write_bytes(b.mutate(dumps(dict(about={}, rows=[1]))))
    stored(b.choice(['x', b.text()]), d)

def token_file(b):
    (ROOT/'t.safetensors').write_bytes(b.mutate(V.tokens))
    corpora._memory(ROOT/'t.safetensors', b.choice(['tokens', 'ends', 'keys']))

def corpus_folder(b):
    d = ROOT/'d'
    d.mkdir(exist_ok=True)
    for f in V.corpus.folder.glob('*.safetensors'): (d/f.name).write_bytes(f.read_bytes())
    about = b.spoil(V.corpus.about)
    (d/'corpus.json').write_bytes(dumps(about) if b.byte() & 1 else b.mutate(dumps(about)))
    c = Corpus(d, 32)
    if c.n_rows(): c.rows_of([0])

def tokenizer(b):
    d = ROOT/'tok'
    d.mkdir(exist_ok=True)
    (d/'tokenizer.json').write_bytes(b.mutate(V.tokenizer) if b.byte() & 1 else dumps(b.spoil(json.loads(V.tokenizer))))
    t = corpora_tokenizers.stored_tokenizer(d)
    t.encode(b.text())

def jsonl_corpus(b):
    d = ROOT/'j'
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir()
    lines = [dumps(b.spoil(dict(text='one two'))), *(dumps(dict(text=f'line {i}')) for i in range(40))]
    (d/'x.jsonl').write_bytes(b.mutate(b'\n'.join(lines)) if b.byte() & 1 else b'\n'.join(lines))
    corpus(str(d/'x.jsonl'), block_size=8, cache=d/'cache', progress=False).rows_of([0])

def lm_checkpoint(b):
    at = checkpoints(ROOT/'lm/language')[-1]
    (at/'run.json').write_bytes(b.mutate(dumps(V.run)) if b.byte() & 1 else dumps(b.spoil(V.run)))
    load_lm(ROOT/'lm')

def odd_tensor(b, t):
    "Something in the place of a tensor"
    huge = torch.zeros(1).expand(2**40, 4), torch.zeros(2**40, 2, device='meta')
    return b.choice([t, t[:1], t.double(), torch.zeros(()), t.T, None, 'x', t.to(torch.complex64), *huge])

def released(b):
    state = dict(V.released)
    k = b.choice(list(state))
    if b.byte() & 3 == 3: state[k] = odd_tensor(b, state[k])
    if b.byte() & 3 == 3: state[f'h.{b.int()}.{b.choice(["ln_1.weight", "attn.c_attn.weight", "x"])}'] = state[k]
    if b.byte() & 3 == 3: state.pop(b.choice(list(state)), None)
    torch.save(b.spoil(dict(model=state)) if b.byte() & 3 == 3 else dict(model=state), io_ := io.BytesIO())
    (ROOT/'p.pth').write_bytes(b.mutate(io_.getvalue()) if b.byte() & 7 == 7 else io_.getvalue())
    load_released(ROOT/'p.pth', [2, 1, 4, 0, -1][b.byte() % 5])

def about(b):
    d = ROOT/'about'
    d.mkdir(exist_ok=True)
    was = dict(model='abc', seed=0)
    (d/'about.json').write_bytes(b.mutate(dumps(was)) if b.byte() & 1 else dumps(b.spoil(was)))
    influence_cli._same(d, was)

def definition(b):
    base = dict(rules=['identity'], parts=['attn'], tests=['haystack'], seeds=1, steps=3, batch_size=4, practice='zoo', practice_steps=None, layers=None, embed=None, controls=['random'],
        compositions=[], rates='fresh', lr=.001, warmup=1, schedule='hold', weight_decay=.1, shape={}, practice_lr=None)
    spoilt = b.spoil(base)
    s = Study(**spoilt if isinstance(spoilt, dict) and all(isinstance(k, str) for k in spoilt) else base)
    repr(s), s._repr_html_(), s.axes()

def arguments(b):
    name = b.choice(sorted(tasks)) # not in the order in which modules happen to be imported
    base = dict(tasks[name]().settings)
    spoilt = b.spoil(base)
    task = tasks[b.choice([name, name, name, b.text()])](**spoilt if isinstance(spoilt, dict) else base)
    if task.seq_len * task.vocab_size > 10**6: return
    batch = task.sample(2, torch.Generator().manual_seed(0))
    if type(task).valid is not Task.valid: task.check(batch.tokens) # controls have no check
    task.show(batch)

def table(b):
    n = 1 + b.byte() % 5
    g = Group(b.spoil([[(i + j) % n for j in range(n)] for i in range(n)]) if b.byte() & 7 else b.value(), b.choice([b.value(), None, None]))
    repr(g), g._repr_html_()

class Sly:
    "An object that misbehaves wherever it can"
    def __init__(self, how): self.how = how
    def __call__(self, *args): return [self, None, ..., float('nan'), [self], {}, torch.zeros(0), 'x' * 10**5, 1j, type, self.how, iter([1])][self.how % 12]
    def __repr__(self): raise RuntimeError('no repr') if self.how & 1 else TypeError()
    def __eq__(self, o): raise RuntimeError('no comparison')
    __hash__ = None

def answer(b):
    name, k = b.choice([*exercises]), b.byte()
    given = [Sly(b.byte()), b.value(), lambda *a: b.value(), lambda *a: a[0] if a else None, lambda: 1, Sly, int, len, torch.nn.Linear, hash, lambda *a: (_ for _ in ()).throw(SystemExit(3))][k % 11]
    out = exercises[name].check(given, seed=0) # must raise nothing at all
    assert out.status in ('right', 'wrong', 'not tried') and '<script>alert' not in (out._repr_html_() or ''), out.status
    str(out)

def line(b):
    encode = influence_cli.open_model(ROOT/'m.safetensors')[1]
    row = b.spoil(b.choice([dict(tokens=[1, 2, 3], given=1), dict(text='a b c'), dict(prompt='a', answer='b c')]))
    (ROOT/'l.jsonl').write_bytes(dumps(row) + b'\n' if b.byte() & 1 else b.mutate(dumps(row)))
    for batch in influence_cli.Lines(ROOT/'l.jsonl', encode, 11, vocab_size=12): assert batch.tokens.max() < 12

def words(b):
    "Small texts that users give"
    k = b.byte() % 9
    if k == 0: study.parse_budget(b.value())
    elif k == 1: parse_control(b.choice([b.text(), 'noise ' + b.text()]))
    elif k == 2: cli.pick_device(b.choice([b.text(), 'cuda:99', 'cpu', 'cpu:1']))
    elif k == 3: transfer(V.model, copy.deepcopy(V.model), b.value())
    elif k == 4: warm_task(b.choice([b.text(), b.text() + '+set', 'shuffled ' + b.text(), '+']), b.value())
    elif k == 5: corpora_sources.document(b.choice([{}, {'text': b.value()}, {'question': b.value(), 'answer': b.value()}]))
    elif k == 6: lm_plan.lm_config(b.text(), b.value(), b.value())
    elif k == 7: tasks[b.text()]
    elif k == 8: corpus(b.choice([b.text(), 'maths']), b.choice(['bytes', 'bpe:' + b.text(), b.text()]), b.choice([16, b.value()]), n=b.choice([3, 0, -1]), cache=ROOT/'w', progress=False)

def command(b):
    "Command lines of the study, as far as they only plan"
    flags = '--seeds --budget --steps --batch-size --rates --warmup --schedule --practice --practice-steps --engine --members --device --nonsense'.split()
    args = [b.choice(['tour', 'lengths', b.text().replace('\x00', '')]), '--plan', *(x for _ in range(b.byte() % 3) for x in (b.choice(flags), b.choice(['1', '0', '-1', 'x', '99', b.text().replace('\x00', '')])))]
    was, sys.argv = sys.argv, ['proc-nb-study', *args, '--out', str(ROOT/'none')]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()): STUDY_MAIN(args)
    except SystemExit as e: assert e.code in (0, 1, 2) or isinstance(e.code, str), e.code
    finally: sys.argv = was

def plan(b):
    "Command lines of pretraining that plan a large run"
    from fastcore.script import anno_parser
    flags = '--rule --parts --steps --warm-steps --length --tokenizer --block --batch-size --micro --devices --lr'.split()
    usual = ['1', '0', '-1', '8', 'x', '99999999999', 'set', 'attn,mlp', 'bpe:512', 'bpe:', 'gpt2', 'bytes']
    args = ['--plan', '--size', b.choice(['12-12-768', '24-16-1024', b.text().replace('\x00', '')]), *(x for _ in range(b.byte() % 4) for x in (b.choice(flags), b.choice([*usual, b.text().replace('\x00', '')])))]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        given = vars(anno_parser(commands.pretrain, prog='proc-nb-pretrain').parse_args(args))
        commands.pretrain(**{k: v for k, v in given.items() if k not in ('pdb', 'xtra')})

def STUDY_MAIN(args):
    from fastcore.script import anno_parser
    f = commands.study.__wrapped__
    given = vars(anno_parser(f, prog='proc-nb-study').parse_args([*args]))
    given = {k: v for k, v in given.items() if k not in ('pdb', 'xtra', 'plan', 'out', 'engine', 'workers', 'members', 'device', 'budget', 'measured')}
    study.parse_budget(vars(anno_parser(f, prog='proc-nb-study').parse_args([*args])).get('budget'))
    seeds = study_cli.parse_seeds(given['seeds']) or 1
    study_cli.named_study(**{**given, 'seeds': min(seeds, 3) if isinstance(seeds, int) else seeds[:3]})

TARGETS = {f.__name__: f for f in (model, model_header, checkpoint, factors, zoo_sums, rows, stored_file, token_file, corpus_folder, tokenizer, jsonl_corpus, lm_checkpoint, released, about, definition, arguments, table, answer, line, words, command, plan)}

# ---- running them

PYTHON = 'definition', 'arguments', 'words' # called from Python, where an argument of a wrong type may be answered by Python's own TypeError
def places(e): return ' '.join([f'{Path(f.filename).stem}:{f.name}' for f in traceback.extract_tb(e.__traceback__) if 'proc_nb' in f.filename][-2:])

class Finding(Exception): "What must not happen"
class Late(BaseException): "A target took too long"

def tried(name, data):
    "Run a target; returns 'fine' or the kind of its answer in words; raises Finding"
    def late(*_): raise Late()
    signal.signal(signal.SIGALRM, late)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.alarm(LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            TARGETS[name](Bytes(bytes(data)))
        said = 'fine'
    except WORDS as e:
        raw = isinstance(e, (json.JSONDecodeError, UnicodeError)) or (isinstance(e, KeyError) and not isinstance(e, NameMissing))
        if raw: raise Finding(f'{name}: {type(e).__name__} in {places(e)}: {str(e)[:80]}') from None
        if not str(e).strip(): raise Finding(f'{name}: {type(e).__name__} without a word') from e
        if len(str(e)) > 20_000: raise Finding(f'{name}: a message of {len(str(e)):,} characters') from e
        said = type(e).__name__
    except Late: raise Finding(f'{name}: still running after {LIMIT} s') from None
    except SystemExit: said = 'exit'
    except KeyboardInterrupt: raise
    except BaseException as e:
        if name in PYTHON and isinstance(e, (TypeError, AttributeError, NotImplementedError)): return 'wrong type'
        raise Finding(f'{name}: {type(e).__name__} in {places(e)}: {str(e)[:80]}') from None
    finally: signal.alarm(0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > MEMORY: raise Finding(f'{name}: took {grown / 2**30:.1f} GiB')
    return said

def prepare():
    global V
    if V is None:
        torch.set_num_threads(1)
        V = valid()

def note(found, e, data):
    key = str(e).split(': ')[:2]
    found.setdefault(': '.join(key), [str(e)[:300], bytes(data).hex()])
    return 'finding'

def plain(name, seconds, seed):
    "Random bytes for so long; returns a row of the report"
    r, end, said, found = random.Random(f'{name} {seed}'), time.time() + seconds, {}, {}
    while time.time() < end:
        data = r.randbytes(r.randrange(1, 120))
        try: k = tried(name, data)
        except Finding as e: k = note(found, e, data)
        said[k] = said.get(k, 0) + 1
    return dict(target=name, seconds=seconds, seed=seed, tried=sum(said.values()), said=said, findings=found, guided=False)

def coverage_guided(name, seconds, seed):
    "The same, guided by coverage"
    said, found, end = {}, {}, time.time() + seconds
    def once(data):
        try: k = tried(name, data)
        except Finding as e: k = note(found, e, data)
        said[k] = said.get(k, 0) + 1
    out = ROOT/'result.json'
    pid = os.fork()
    if not pid:
        fd = os.open(os.devnull, os.O_WRONLY)
        os.dup2(fd, 2), os.dup2(fd, 1)
        def stop(*_):
            out.write_text(json.dumps(dict(target=name, seconds=seconds, seed=seed, tried=sum(said.values()), said=said, findings=found, guided=True)), encoding='utf-8')
            os._exit(0)
        def timed(data):
            once(data)
            if time.time() > end: stop()
        atheris.Setup(['fuzz', f'-seed={seed + 1}', '-max_len=160', '-rss_limit_mb=6000', '-timeout=60', f'-artifact_prefix={ROOT}/'], timed, enable_python_coverage=True)
        atheris.Fuzz()
        os._exit(1)
    os.waitpid(pid, 0)
    if not out.exists(): # the process died: an input that no exception could answer
        last = [p.read_bytes().hex() for p in ROOT.glob('*-*') if p.name.startswith(('crash', 'timeout', 'oom'))]
        return dict(target=name, seconds=seconds, seed=seed, tried=0, said={}, findings={f'{name}: the process died': [f'{name}: the process died', ' '.join(last)]}, guided=True)
    got = json.loads(out.read_text(encoding='utf-8'))
    out.unlink()
    return got

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--target', default='all', choices=['all', *TARGETS])
    p.add_argument('--seconds', type=float, default=10, help='for each target')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--plain', action='store_true', help='without atheris')
    p.add_argument('--out', help='file of JSON lines to add the results to')
    a = p.parse_args()
    prepare()
    bad = 0
    for name in TARGETS if a.target == 'all' else [a.target]:
        row = (coverage_guided if guided else plain)(name, a.seconds, a.seed)
        bad += len(row['findings'])
        print(f'{name}: {row["tried"]:,} inputs in {a.seconds:g} s, {"guided" if row["guided"] else "plain"}, {row["said"]}', flush=True)
        for k, v in row['findings'].items(): print('   ', v[0], v[1][:40], flush=True)
        if a.out:
            with open(a.out, 'a', encoding='utf-8') as f: f.write(json.dumps(row) + '\n')
    sys.exit(bad > 0)
