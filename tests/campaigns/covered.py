"""Lines and branches that the notebooks' own cells and the quick tests run: python tests/campaigns/covered.py --modules task,train --out coverage.json

The cells of a notebook run against the exported module, as a user would; then the named tests. Needs the package `coverage`.
"""
import argparse, ast, contextlib, io, json, os, sys, time, warnings
from pathlib import Path
import coverage
sys.path.insert(0, str(Path(__file__).parent))
from mutate import BOOKS, ROOT, cells, file_of

TESTS = 'test_transfer test_samplers test_tasks test_files test_input test_honest test_exercises test_study test_ensemble test_commands test_lab test_lego test_influence test_language'.split()

def functions(path, lines):
    "The functions in which `lines` stand"
    spans = [(n.lineno, n.end_lineno, n.name) for n in ast.walk(ast.parse(path.read_text(encoding='utf-8'))) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    inner = lambda l: min(((b - a, n) for a, b, n in spans if a <= l <= b), default=(0, 'module'))[1]
    return list(dict.fromkeys(inner(l) for l in lines))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--modules', default=','.join(m for m in BOOKS if (ROOT/file_of(m)).exists() and m != 'all'))
    p.add_argument('--seconds', type=float, default=3000)
    p.add_argument('--out')
    a = p.parse_args()
    names, end, cut = a.modules.split(','), time.time() + a.seconds, set()
    os.environ.setdefault('PROC_NB_SHORT', '50')
    cov = coverage.Coverage(branch=True, source_pkgs=['proc_nb'], data_file=None, concurrency=['thread'])
    cov.start()
    warnings.simplefilter('ignore')
    for m in names:
        os.chdir(ROOT/'nbs')
        space = {'__name__': '__main__'}
        exec(f'import proc_nb.{m} as _m\nglobals().update({{k: v for k, v in vars(_m).items() if not k.startswith("__")}})', space)
        for i,s in enumerate(cells(BOOKS[m])):
            if time.time() > end:
                cut.add(m)
                break
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                try: exec(s, space)
                except Exception as e: sys.__stderr__.write(f'{m}: cell {i}: {type(e).__name__}: {e}\n')
    os.chdir(ROOT)
    import pytest
    for t in TESTS:
        if time.time() > end: cut.add(t)
        else: pytest.main(['-q', '-x', '-m', 'not full', '-k', 'not 100_000 and not little and not made_again and not process', '-p', 'no:cacheprovider', f'tests/{t}.py'])
    if cut: print('There was no time for', *sorted(cut))
    cov.stop()
    rows = []
    for m in names:
        path = ROOT/file_of(m)
        found = cov._analyze(str(path))
        n, branches = found.numbers, sorted({l for l, ends in found.missing_branch_arcs().items()} | set(found.missing))
        rows.append(dict(module=m, percent=round(n.pc_covered), lines=n.n_statements, missing=', '.join(functions(path, branches)), cut=sorted(cut)))
        print(rows[-1], flush=True)
    if a.out: Path(a.out).write_text(json.dumps(rows, indent=1), encoding='utf-8')
