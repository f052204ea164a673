"""The type checker's view of the package. mypy does not know `@patch` and `store_attr`, so it reads a copy in which the methods that `@patch` adds stand in
their classes and what `store_attr` sets is written out. `python tests/test_types.py` leaves the copy in _artifacts/types, where its line numbers can be looked up."""
import ast, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
OUT = ROOT/'_artifacts/types'

def name_of(f):
    "The class that a patched function belongs to"
    patched = any(getattr(d, 'id', getattr(getattr(d, 'func', None), 'id', '')) == 'patch' for d in f.decorator_list)
    return f.args.args[0].annotation.id if patched else None

def as_method(f):
    "A patched function as a method"
    props = [ast.Name('property')] if any(isinstance(d, ast.Call) and 'patch' in ast.unparse(d) for d in f.decorator_list) else []
    f.decorator_list = props + [d for d in f.decorator_list if 'patch' not in ast.unparse(d)]
    f.args.args[0].annotation = None
    return f

def loose(f):
    "A method of another module's class: its name, and nothing about its types"
    return ast.parse(f'def {f.name}(self, *args, **kwargs): ...').body[0]

class Plain(ast.NodeTransformer):
    "`store_attr()` as assignments, and settings, which are passed on with `**`, as dicts of anything"
    def visit_FunctionDef(self, f):
        self.params = [a.arg for a in [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs][1:]]
        return self.generic_visit(f)
    def visit_Expr(self, e):
        if getattr(getattr(e.value, 'func', None), 'id', '') != 'store_attr': return e
        given = {k.arg: k.value for k in e.value.keywords}
        but = given.pop('but', ast.Constant('')).value.split(',')
        named = e.value.args[0].value.split(',') if e.value.args else self.params
        sets = {**{p: ast.Name(p) for p in named if p not in but}, **{k: v for k, v in given.items() if k}}
        return [ast.Assign([ast.Attribute(ast.Name('self'), k)], v, lineno=0) for k, v in sets.items()] or ast.Pass()
    def visit_Assign(self, a):
        settings = isinstance(a.value, ast.Dict) or getattr(getattr(a.value, 'func', None), 'id', '') == 'dict'
        if not settings or not isinstance(a.targets[0], ast.Name): return a
        return ast.AnnAssign(a.targets[0], ast.Name('dict'), a.value, simple=1)

def write(package, out):
    trees = {p: ast.parse(p.read_text(encoding='utf-8')) for p in sorted(package.rglob('*.py'))}
    classes = {c.name: (p, c) for p, t in trees.items() for c in t.body if isinstance(c, ast.ClassDef)}
    for p, tree in trees.items():
        for f in [f for f in tree.body if isinstance(f, ast.FunctionDef) and name_of(f)]:
            home, cls = next(((p, c) for c in tree.body if getattr(c, 'name', '') == name_of(f)), classes.get(name_of(f), (None, None)))
            if cls and home == p: cls.body = [m for m in cls.body if getattr(m, 'name', '') != f.name]
            if cls: cls.body.append(as_method(f) if home == p else loose(f))
            tree.body.remove(f)
        for a in [a for a in tree.body if isinstance(a, ast.Assign) and isinstance(a.targets[0], ast.Attribute)]:
            cls = next((c for c in tree.body if isinstance(c, ast.ClassDef) and c.name == ast.unparse(a.targets[0].value)), None)
            if not cls: continue
            tree.body.remove(a)
            cls.body.append(ast.parse(f'{a.targets[0].attr} = eval("anything")').body[0])
    out.mkdir(parents=True, exist_ok=True)
    for p, tree in trees.items():
        file = out/p.relative_to(package)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(ast.unparse(ast.fix_missing_locations(Plain().visit(tree))), encoding='utf-8')
    (out/'py.typed').touch()

def check():
    "What mypy says about the copy"
    write(ROOT/'proc_nb', OUT/'proc_nb')
    return subprocess.run([sys.executable, '-m', 'mypy', '--config-file', ROOT/'pyproject.toml', '--python-version', f'{sys.version_info[0]}.{sys.version_info[1]}', '--cache-dir', '.mypy_cache', '-p', 'proc_nb'], cwd=OUT, capture_output=True, text=True)

def test_types():
    done = check()
    assert not done.returncode, done.stdout + done.stderr

def test_a_mistake_is_found():
    "A patched method with a wrong call in it: the checker sees methods, stored attributes and their types"
    write(ROOT/'proc_nb', OUT/'proc_nb')
    wrong = ["wilson('a', 3)", "Exercise.check(1, 2, 3, 4)", "Arithmetic(3).read(1, 2)", "Arithmetic(3).no_such_name"]
    lines = ['from proc_nb.results import wilson', 'from proc_nb.course.exercises import Exercise', 'from proc_nb.tasks.downstream import Arithmetic', *wrong]
    (OUT/'wrong.py').write_text('\n'.join(lines), encoding='utf-8')
    said = subprocess.run([sys.executable, '-m', 'mypy', '--config-file', ROOT/'pyproject.toml', '--cache-dir', '.mypy_cache', 'wrong.py'], cwd=OUT, capture_output=True, text=True).stdout
    assert {int(l.split(':')[1]) for l in said.splitlines() if ': error:' in l} == {4, 5, 6, 7}, said

if __name__ == '__main__': print(check().stdout)
