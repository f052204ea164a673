"""Small changes to the package, each of which some test should notice.

    python tests/campaigns/mutate.py --module transfer --count 30 --seed 1 --out mutants.jsonl

One place of a module is changed (a comparison, a sign, a number, a mask, a bound, a deleted line) in a copy of the package; then the module's own notebook cells are run,
and the named tests if those notice nothing. A mutant that nothing notices survives: it is killed by a new test, or explained on the page `nbs/explain/trust`.
"""
import argparse, ast, copy, json, os, random, re, signal, sys, tempfile, time, warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BOOKS = {re.sub(r'^\d+_', '', p.stem): p for p in (ROOT/'nbs').glob('[0-9]*.ipynb')}
MODULES = {'tasks.core': 'test_tasks test_samplers', 'tasks.brackets': 'test_tasks test_samplers',
    'tasks.sequences': 'test_tasks test_samplers', 'tasks.downstream': 'test_tasks test_samplers', 'tasks.controls': 'test_tasks',
    'models.transfer': 'test_transfer', 'models.gpt': 'test_hf', 'train.loss': 'test_honest',
    'results': 'test_honest'}
PICK = {'tasks.core': 'split or contract or nonsense or generator or impossible', 'tasks.brackets': 'dyck',
    'tasks.sequences': 'identity or reverse or sort or set or union or delete or stack or eca',
    'tasks.downstream': 'haystack or addition or multiplication or sorting',
    'tasks.controls': 'shuffled or random or mixture', 'train.loss': 'hand',
    'results': 'hand or interval or tables_say or quantiles'}
LIMIT = 90

def file_of(module): return f"proc_nb/{module.replace('.', '/')}.py"

SWAP = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And}
SHOWS = '_repr_html_ __repr__ picture show Html svg'.split() # how things look is judged by eye, not here

def places(tree):
    "What can be changed: (node, field, new value, words)"
    def texts(n): return isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
    def walk(node, inside):
        for n in ast.iter_child_nodes(node):
            name = getattr(n, 'name', inside)
            if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and name in SHOWS: continue
            if isinstance(n, (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr)) or texts(n): continue
            for f in ('op',):
                if hasattr(n, f) and type(n.op) in SWAP: yield n, 'op', SWAP[type(n.op)](), f'{type(n.op).__name__} to {SWAP[type(n.op)].__name__}', name
            if isinstance(n, ast.Compare) and type(n.ops[0]) in SWAP: yield n, 'ops', [SWAP[type(n.ops[0])](), *n.ops[1:]], f'{type(n.ops[0]).__name__} to {SWAP[type(n.ops[0])].__name__}', name
            if isinstance(n, ast.UnaryOp) and isinstance(n.op, (ast.Invert, ast.USub, ast.Not)): yield n, None, n.operand, f'{type(n.op).__name__} left out', name
            if isinstance(n, ast.Constant) and type(n.value) in (int, float): yield n, 'value', n.value + 1, f'{n.value} to {n.value + 1}', name
            if isinstance(n, ast.Constant) and type(n.value) is bool: yield n, 'value', not n.value, f'{n.value} turned', name
            if isinstance(n, ast.Return) and n.value is not None and not isinstance(node, ast.Lambda): yield n, 'value', ast.Constant(None), 'returns nothing', name
            if isinstance(n, (ast.Assign, ast.AugAssign)) and isinstance(node, ast.FunctionDef) or (isinstance(n, ast.Expr) and not texts(n) and isinstance(node, ast.FunctionDef)): yield n, 'gone', None, 'line left out', name
            yield from walk(n, name)
    yield from walk(tree, '')

class Change(ast.NodeTransformer):
    def __init__(self, node, field, new): self.node, self.field, self.new = node, field, new
    def visit(self, n):
        if n is not self.node: return self.generic_visit(n)
        if self.field == 'gone': return ast.copy_location(ast.Pass(), n)
        if self.field is None: return self.new
        m = copy.copy(n)
        setattr(m, self.field, self.new)
        return ast.copy_location(m, n)

def mutant(text, i):
    "The text with its `i`-th change, where it is and what it is"
    tree = ast.parse(text)
    for n in ast.walk(tree): # defaults and docments stay
        if isinstance(n, ast.FunctionDef): n.decorator_list = list(n.decorator_list)
    node, field, new, words, name = list(places(tree))[i]
    return ast.unparse(ast.fix_missing_locations(Change(node, field, new).visit(tree))), f'line {node.lineno}, {name}: {words} in `{text.splitlines()[node.lineno - 1].strip()[:100]}`'

def cells(book):
    for c in json.loads(book.read_text(encoding='utf-8'))['cells']:
        s = ''.join(c['source'])
        if c['cell_type'] != 'code' or re.search(r'^#\|\s*(export|exports|default_exp|eval:\s*false|slow|notest|cuda)', s, re.M) or 'nbdev_export' in s: continue
        yield s

def killed(module, text):
    "In a child: does the notebook, or do the named tests, notice the changed module? Returns who does, or None"
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        os.setsid()
        os.close(r)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        signal.alarm(LIMIT)
        try: os.write(w, (_noticed(module, text) or '').encode()[:2000])
        except BaseException as e: os.write(w, f'{type(e).__name__}'.encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r, 'rb') as f: said = f.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 'time' if code == -signal.SIGALRM else 'crash' if code else said or None

def _noticed(module, text):
    import torch
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    folder = Path(tempfile.mkdtemp())
    for d in ('proc_nb', 'tests'): (folder/d).mkdir()
    for p in (ROOT/'proc_nb').rglob('*.py'):
        copy = folder/p.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(p.read_text(encoding='utf-8'), encoding='utf-8')
    os.symlink(ROOT/'proc_nb/data', folder/'proc_nb/data')
    (folder/file_of(module)).write_text(text, encoding='utf-8')
    for k in [k for k in sys.modules if k.split('.')[0] == 'proc_nb']: del sys.modules[k]
    sys.path.insert(0, str(folder))
    os.chdir(ROOT/'nbs')
    os.environ['PROC_NB_SHORT'] = '50'
    space = {'__name__': '__main__'}
    try:
        exec(f'from proc_nb.{module} import *\nimport proc_nb.{module} as _m\nglobals().update({{k: v for k, v in vars(_m).items() if not k.startswith("__")}})', space)
        for s in cells(BOOKS[module]): exec(s, space)
    except BaseException as e: return f'notebook: {type(e).__name__}'
    import pytest
    os.chdir(ROOT)
    files = [str(ROOT/f'tests/{t}.py') for t in MODULES[module].split()]
    sys.path.insert(0, str(ROOT/'tests'))
    pick = PICK.get(module, '')
    code = pytest.main(['-q', '-x', '-m', 'not full', '-k', f'({pick}) and not 100_000 and not little' if pick else 'not 100_000 and not little', '-p', 'no:cacheprovider', *files])
    return 'tests' if code == 1 else None if code in (0, 5) else f'pytest {code}'

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--module', default='all', choices=['all', *MODULES])
    p.add_argument('--count', type=int, default=12, help='mutants of each module')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--only', type=int, help='one mutant by its number')
    p.add_argument('--out')
    p.add_argument('--allow', type=float, default=.25, help='share of survivors that is no failure')
    a = p.parse_args()
    import torch, numpy, altair, fastcore.all, fastcore.test, pytest, hypothesis, ipywidgets, safetensors.torch, tqdm.auto, IPython.display # once, for all children
    survived = total = 0
    for m in MODULES if a.module == 'all' else [a.module]:
        text = (ROOT/file_of(m)).read_text(encoding='utf-8')
        n = len(list(places(ast.parse(text))))
        if why := killed(m, text): sys.exit(f'{m}: the unchanged module is not accepted: {why}')
        for i in [a.only] if a.only is not None else random.Random(f'{m} {a.seed}').sample(range(n), min(n, a.count)):
            new, where = mutant(text, i)
            begun, who = time.time(), killed(m, new)
            total, survived = total + 1, survived + (who is None)
            row = dict(module=m, number=i, of=n, where=where, killed=who, seconds=round(time.time() - begun, 1))
            if who is None: print(f'survived: {m} {i} {where}', flush=True)
            if a.out:
                with open(a.out, 'a', encoding='utf-8') as f: f.write(json.dumps(row) + '\n')
    print(f'{total - survived} of {total} mutants killed')
    sys.exit(survived > a.allow * total)
