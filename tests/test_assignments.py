"The assignments: student notebooks show nothing they should not, model answers get full marks, wrong ones do not."
import contextlib, csv, importlib.util, json, re, signal, sys, time, zipfile
from pathlib import Path
import pytest

pytest.importorskip('otter', reason='needs otter-grader: the extra course')
HERE = Path(__file__).parent.parent/'tutorials'/'assignments'
spec = importlib.util.spec_from_file_location('make_assignments', HERE/'make.py')
maker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(maker)
grader = sys.modules['grade']
from otter.test_files import ExceptionTestFile
from class_answers import (CHECKERS, DIES, ENDLESS, HANDED_IN, HARD_CODED, NO_GENERATOR, OVERFLOW, PLAIN_VIEW, RAISES, ROW_BY_ROW, SAMPLERS, TRAINS, put)
def points(book, bundle, limit=120): return grader.points(book.read_bytes(), bundle, limit)[0]
POINTS = {'1_dyck': 10, '2_attention': 11, '3_transfer': 8, '4_rule': 9}

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('made')
    assert list(maker.make(out, 'our class')) == list(POINTS)
    return out

def book(path): return json.loads(path.read_text(encoding='utf-8'))
def text(path, kinds=('code', 'markdown', 'raw')): return '\n'.join(''.join(c['source']) for c in book(path)['cells'] if c['cell_type'] in kinds)

def graded(made, name, tmp_path, *answers, limit=120):
    "The model answers with some cells replaced, by the command's own way"
    (tmp_path/'answer.ipynb').write_text(json.dumps(put(answers_of(made, name), *answers)), encoding='utf-8')
    return points(tmp_path/'answer.ipynb', made/'autograder'/f'{name}.zip', limit)

@pytest.mark.parametrize('name', POINTS)
def test_student_notebook(made, name):
    mine, answers = text(made/'student'/f'{name}.ipynb'), text(made/'autograder'/f'{name}_answers.ipynb')
    for word in ('SOLUTION', 'HIDDEN', 'BEGIN TEST', 'assert', 'One point'): assert word not in mine
    assert '%pip install -q proc-nb' in mine and '...' in mine and 'Points:**' in mine and 'Time:**' in mine
    assert 'otter' not in mine, 'a student needs no grader'
    blocks = re.findall('# BEGIN SOLUTION.*?# END SOLUTION', text(HERE/'_masters'/f'{name}.ipynb', ['code']), re.S)
    solved = [l.strip() for b in blocks for l in b.splitlines()[1:-1] if len(l.strip()) > 25]
    assert len(solved) > 3 and not [l for l in solved if l in mine] and all(l in answers for l in solved)
    meta = json.dumps(book(made/'student'/f'{name}.ipynb')['metadata'])
    assert 'hidden": true' not in meta and str(maker.hidden_seed('our class', name)) not in meta

@pytest.mark.parametrize('name', POINTS)
def test_the_secret_draws_the_hidden_tests(made, name):
    with zipfile.ZipFile(made/'autograder'/f'{name}.zip') as z: tests = '\n'.join(z.read(n).decode() for n in z.namelist() if n.endswith('.py'))
    assert 'HIDDEN_SEED' not in tests and str(maker.hidden_seed('our class', name)) in tests
    assert len({maker.hidden_seed(s, n) for s in ('', 'a', 'b') for n in POINTS}) == 12

def test_masters_are_clean():
    for p in (HERE/'_masters').glob('*.ipynb'):
        nb = book(p)
        assert all(c['id'] and not c.get('outputs') for c in nb['cells']) and set(nb['metadata']) <= {'kernelspec', 'language_info'}

FULL = pytest.mark.full
@pytest.mark.parametrize('name', ['1_dyck', *(pytest.param(n, marks=FULL) for n in list(POINTS)[1:])])
def test_model_answer(made, name, tmp_path): assert graded(made, name, tmp_path)['total'] == (POINTS[name], POINTS[name])

@pytest.mark.parametrize('name', ['2_attention', *(pytest.param(n, marks=FULL) for n in POINTS if n != '2_attention')])
def test_blank(made, name): assert points(made/'student'/f'{name}.ipynb', made/'autograder'/f'{name}.zip')['total'] == (0, POINTS[name])

def answers_of(made, name): return book(made/'autograder'/f'{name}_answers.ipynb')

def without_a_kernel(nb, bundle, folder, limit=1.):
    "Points of the questions whose tests train nothing: the cells, then the bundle's own tests, in this process, each with `limit` seconds of the processor"
    def give_up(*_): raise TimeoutError(f'given up after {limit:g} s')
    old = signal.signal(signal.SIGPROF, give_up)
    space, got = dict(__name__='handed_in'), {}
    try:
        for c in nb['cells']:
            source = ''.join(c['source'])
            if c['cell_type'] != 'code' or '%pip' in source or re.search(r'= learn|append\(learn|^(results|gain\()', source, re.M): continue
            signal.setitimer(signal.ITIMER_PROF, 10 * limit)
            with contextlib.suppress(Exception): exec(compile(source, 'handed in', 'exec'), space)
        with zipfile.ZipFile(bundle) as z: z.extractall(folder)
        for file in sorted((folder/'tests').glob('*.py')):
            if file.stem in TRAINS: continue
            tests = ExceptionTestFile.from_file(str(file))
            signal.setitimer(signal.ITIMER_PROF, 4 * limit, limit)
            tests.run(space)
            got[file.stem] = sum(r.test_case.points for r in tests.test_case_results if r.passed)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
    return got

EVERY = [pytest.param(name, kind, id=f'{name} {kind}') for name, kinds in HANDED_IN.items() for kind in kinds]

@pytest.mark.parametrize('name, kind', EVERY)
def test_outcome(made, name, kind, tmp_path, capsys):
    "What each answer of the table gets, by the bundle's own tests"
    make_answer, points = HANDED_IN[name][kind]
    got = without_a_kernel(make_answer(answers_of(made, name)), made/'autograder'/f'{name}.zip', tmp_path)
    assert got == {q: n for q, n in points.items() if q not in TRAINS}

@FULL
@pytest.mark.parametrize('name', HANDED_IN)
def test_a_class_is_graded(made, name, tmp_path):
    "The same table by the command itself, with names of many alphabets: everything an answer can lose is lost there, and nothing else"
    names = dict(zip(HANDED_IN[name], 'Ada,Zo\u00eb M\u00fcller,\u0141ucja,\u5c0f\u660e,\u0410\u0439\u0433\u0435\u0440\u0438\u043c,O\u2019Brien,Ng\u1ecdc,Ma\u00eft\u00e9,Se\u00e1n B.'.split(',')))
    (tmp_path/'in').mkdir()
    for kind, (make_answer, _) in HANDED_IN[name].items():
        (tmp_path/'in'/f'{names[kind]}.ipynb').write_text(json.dumps(make_answer(answers_of(made, name))), encoding='utf-8')
    rows = {r['name']: r for r in grader.grade(made/'autograder'/f'{name}.zip', tmp_path/'in', tmp_path/'out', workers=2)}
    due = {kind: {q: p for q, p in points.items() if p is not None} for kind, (_, points) in HANDED_IN[name].items()}
    assert {kind: {q: rows[names[kind]]['points'][q][0] for q in due[kind]} for kind in due} == due

MORE = [('1_dyck', [NO_GENERATOR], dict(checker=3, sampler=4)), ('1_dyck', [HARD_CODED], dict(checker=3, sampler=4)), ('2_attention', [OVERFLOW], dict(maps=3, layer=5, surgery=2)),
    ('2_attention', [PLAIN_VIEW], dict(maps=4, layer=1, surgery=0)), ('2_attention', [RAISES], dict(maps=4, layer=5, surgery=0))]

@pytest.mark.parametrize('name, answers, points', MORE, ids='no_generator hard_coded overflow plain_view raises'.split())
def test_more_wrong_answers(made, name, answers, points, tmp_path):
    assert without_a_kernel(put(answers_of(made, name), *answers), made/'autograder'/f'{name}.zip', tmp_path) == points

@pytest.mark.parametrize('checker, sampler', list(zip(CHECKERS[1:], [*SAMPLERS[1:], SAMPLERS[0]])))
def test_a_right_answer_in_other_words_loses_nothing(made, checker, sampler, tmp_path):
    assert without_a_kernel(put(answers_of(made, '1_dyck'), checker, sampler), made/'autograder'/'1_dyck.zip', tmp_path) == dict(checker=3, sampler=7)

def table(folder): return list(csv.DictReader((folder/'grades.csv').read_text(encoding='utf-8-sig').splitlines()))

def test_a_loop_over_rows_is_found_without_a_clock(made, tmp_path):
    nb = book(made/'autograder'/'1_dyck_answers.ipynb')
    cell, = [c for c in nb['cells'] if ''.join(c['source']).startswith('def dyck_rows')]
    cell['source'] = ROW_BY_ROW
    got, wrong = grader.points(json.dumps(nb).encode(), made/'autograder'/'1_dyck.zip', 120)
    assert got['sampler'] == (6, 7) and 'is there a loop over rows?' in wrong['sampler'][0]
    assert 'perf_counter' not in text(HERE/'_masters/1_dyck.ipynb')

def test_what_cannot_be_graded(made, tmp_path):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'broken.ipynb').write_text('{', encoding='utf-8')
    grader.grade(made/'autograder'/'1_dyck.zip', tmp_path/'in', tmp_path/'out', limit=60)
    assert 'it is no notebook' in table(tmp_path/'out')[0]['problem'] and 'it is no notebook' in (tmp_path/'out/feedback/broken.txt').read_text(encoding='utf-8')

@pytest.mark.parametrize('what', ['a folder that is not there', 'an empty folder', 'no bundle'])
def test_nothing_to_grade_is_an_error(what, made, tmp_path, capsys, monkeypatch):
    "It printed nothing and ended well"
    where = tmp_path/'none' if 'not there' in what else tmp_path
    bundle = tmp_path/'none.zip' if what == 'no bundle' else made/'autograder'/'1_dyck.zip'
    if what == 'no bundle': (tmp_path/'a.ipynb').write_text('{}', encoding='utf-8')
    monkeypatch.setattr(sys, 'argv', ['make.py', 'grade', str(bundle), str(where), '--out', str(tmp_path/'out')])
    with pytest.raises(SystemExit, match='There is no|Nothing was handed in'): maker.main()

@FULL
def test_an_endless_answer_costs_its_own_question(made, tmp_path):
    got = graded(made, '1_dyck', tmp_path, ENDLESS, limit=15)
    assert got['checker'] == (0, 3) and got['sampler'] == (7, 7)
    wrong = grader.points((tmp_path/'answer.ipynb').read_bytes(), made/'autograder'/'1_dyck.zip', 15)[1]
    assert 'given up after 7.5 s' in wrong['checker'][0], 'the first cell had 15 s'

@FULL
def test_another_kernels_name(made, tmp_path):
    nb = book(made/'autograder'/'1_dyck_answers.ipynb')
    nb['metadata']['kernelspec'] = dict(name='my-venv-3.9', display_name='mine', language='python')
    (tmp_path/'a.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    assert points(tmp_path/'a.ipynb', made/'autograder'/'1_dyck.zip')['total'] == (10, 10)

def test_a_notebook_is_made_ready():
    nb = dict(nbformat=4, nbformat_minor=5, metadata=dict(kernelspec=dict(name='r')), cells=[dict(cell_type='code', id='a', source=['%pip install -q proc-nb\n', 'x = 1'])])
    ready = grader.prepared(json.dumps(nb).encode(), 7)
    assert ready['metadata']['kernelspec']['name'] == 'python3' and '_allowed = [7]' in ready['cells'][0]['source'] and ready['cells'][1]['source'] == '\nx = 1'
    for odd in (b'{', b'[]', b'{"cells": 3}', b'\xff'):
        with pytest.raises(ValueError, match='it is no notebook'): grader.prepared(odd, 7)

def test_what_a_class_hands_in(tmp_path):
    "Notebooks, zips, folders and one zip of all, with any name"
    (tmp_path/'in/Ada Lovelace_12').mkdir(parents=True)
    (tmp_path/'in/Ada Lovelace_12/x.ipynb').write_text('1', encoding='utf-8')
    (tmp_path/'in/Ada Lovelace_12/.ipynb_checkpoints').mkdir()
    (tmp_path/'in/Ada Lovelace_12/.ipynb_checkpoints/x.ipynb').write_text('9', encoding='utf-8')
    (tmp_path/'in/plain.ipynb').write_text('2', encoding='utf-8')
    (tmp_path/'in/notes.txt').write_text('no', encoding='utf-8')
    with zipfile.ZipFile(tmp_path/'in/Zo\u00eb.zip', 'w') as z: z.writestr('sub/a.ipynb', '3'), z.writestr('__MACOSX/sub/a.ipynb', '9')
    with zipfile.ZipFile(tmp_path/'in/two.zip', 'w') as z: z.writestr('a.ipynb', '4'), z.writestr('b.ipynb', '5')
    found = dict(grader.handed_in(tmp_path/'in'))
    assert {n: found[n]() for n in ('Ada Lovelace_12', 'plain', 'Zo\u00eb')} == {'Ada Lovelace_12': b'1', 'plain': b'2', 'Zo\u00eb': b'3'} and set(found) - {'two'} == {'Ada Lovelace_12', 'plain', 'Zo\u00eb'}
    with pytest.raises(ValueError, match='one notebook is asked for, and there are 2'): found['two']()
    with zipfile.ZipFile(tmp_path/'class.zip', 'w') as z: z.writestr('Ada_1/x.ipynb', '1'), z.writestr('Bob.ipynb', '2')
    assert {n: f() for n, f in grader.handed_in(tmp_path/'class.zip')} == {'Ada_1': b'1', 'Bob': b'2'}

def row(name, got=7., code=''):
    about = dict(name=name, bundle='b', sha256='s', words=[f'My answer, {name}'], code=code)
    return dict(about, points=dict(one=[got, 10.], total=[got, 10.]), wrong=dict(one=['it is 3']))

def test_a_second_call_goes_on(made, tmp_path, monkeypatch):
    "What is graded is not graded again, unless the notebook or the bundle has changed"
    (tmp_path/'in').mkdir()
    for n in 'abc': (tmp_path/'in'/f'{n}.ipynb').write_text(n, encoding='utf-8')
    asked = []
    def fake(name, read, bundle, limit):
        asked.append(name)
        if name == 'b' and len(asked) == 2: raise KeyboardInterrupt
        return {**row(name), 'bundle': grader.sha(Path(bundle).read_bytes()), 'sha256': grader.sha(read())}
    monkeypatch.setattr(grader, '_graded', fake)
    bundle = made/'autograder'/'1_dyck.zip'
    with pytest.raises(KeyboardInterrupt): grader.grade(bundle, tmp_path/'in', tmp_path/'out', limit=9)
    grader.grade(bundle, tmp_path/'in', tmp_path/'out', limit=9)
    assert asked.count('a') == 1 and len(table(tmp_path/'out')) == 3
    (tmp_path/'in/a.ipynb').write_text('new', encoding='utf-8')
    asked.clear()
    grader.grade(bundle, tmp_path/'in', tmp_path/'out', limit=9)
    assert asked == ['a']

def test_points_come_back_in_the_rosters_own_columns(tmp_path, capsys):
    (tmp_path/'canvas.csv').write_text('Student,ID,SIS Login ID,Section,Old\n"M\u00fcller, Zo\u00eb",501,zoe,A,3\n"Lovelace, Ada",502,ada,A,4\n"Nobody, Nick",503,nick,A,\n', encoding='utf-8')
    grader.upload([row('zoe m\u00fcller', 9.), row('lovelaceada_502_x', 8.), row('somebody else')], tmp_path/'canvas.csv', tmp_path/'up.csv', '1_dyck')
    lines = list(csv.reader((tmp_path/'up.csv').read_text(encoding='utf-8-sig').splitlines()))
    assert lines == [['Student', 'ID', 'SIS Login ID', 'Section', '1_dyck'], ['M\u00fcller, Zo\u00eb', '501', 'zoe', 'A', '9.0'], ['Lovelace, Ada', '502', 'ada', 'A', '8.0'], ['Nobody, Nick', '503', 'nick', 'A', '']]
    assert 'Not in the roster: somebody else' in capsys.readouterr().out
    (tmp_path/'moodle.csv').write_text('Identifier,Full name,Email address,Status\nParticipant 77,Ada Lovelace,ada@uni.example,x\n', encoding='utf-8')
    grader.upload([row('Ada Lovelace_77_assignsubmission_file', 8.)], tmp_path/'moodle.csv', tmp_path/'up.csv', '1_dyck')
    assert list(csv.reader((tmp_path/'up.csv').read_text(encoding='utf-8-sig').splitlines())) == [['Identifier', 'Full name', 'Email address', 'Grade'], ['Participant 77', 'Ada Lovelace', 'ada@uni.example', '8.0']]

def test_points_for_written_answers_are_kept_and_added(tmp_path):
    (tmp_path/'feedback').mkdir()
    grader.report([row('Zo\u00eb'), row('Ada')], tmp_path)
    file = tmp_path/'written.csv'
    assert grader.written(tmp_path) == {'Zo\u00eb': '', 'Ada': ''}
    file.write_text(file.read_text(encoding='utf-8-sig').replace('Ada,', 'Ada,1.5'), encoding='utf-8')
    grader.report([row('Zo\u00eb'), row('Ada'), row('Bob')], tmp_path)
    assert grader.written(tmp_path) == {'Zo\u00eb': '', 'Ada': '1.5', 'Bob': ''}
    assert 'Written answers: 1.5 points' in (tmp_path/'feedback/Ada.txt').read_text(encoding='utf-8')
    (tmp_path/'roster.csv').write_text('Student,ID\n"L, Ada",5\n', encoding='utf-8')
    grader.upload([row('l_ada')], tmp_path/'roster.csv', tmp_path/'up.csv', 'one', {'l_ada': '1.5'})
    assert '8.5' in (tmp_path/'up.csv').read_text(encoding='utf-8-sig')

def test_two_of_one_name_are_refused(tmp_path):
    (tmp_path/'Ada').mkdir()
    (tmp_path/'Ada.ipynb').write_text('{}', encoding='utf-8')
    with pytest.raises(ValueError, match='More than one of these was handed in.*Ada'): grader.handed_in(tmp_path)

def test_ctrl_c_begins_nothing_new_and_reports_what_is_done(made, tmp_path, monkeypatch):
    (tmp_path/'in').mkdir()
    for n in 'abcdef': (tmp_path/'in'/f'{n}.ipynb').write_text(n, encoding='utf-8')
    asked, real = [], grader.as_completed
    def fake(name, read, bundle, limit):
        asked.append(name)
        time.sleep(.05)
        return {**row(name), 'bundle': 'b', 'sha256': 's'}
    def interrupted(jobs):
        for i, job in enumerate(real(jobs)):
            if i == 2: raise KeyboardInterrupt
            yield job
    monkeypatch.setattr(grader, '_graded', fake)
    monkeypatch.setattr(grader, 'as_completed', interrupted)
    with pytest.raises(KeyboardInterrupt): grader.grade(made/'autograder'/'1_dyck.zip', tmp_path/'in', tmp_path/'out', limit=9)
    assert len(asked) < 6 and len(table(tmp_path/'out')) == 2

def test_the_environment_is_pinned(made):
    "A bundle names the version it was made with, and the container installs the versions that the project is tested with"
    with zipfile.ZipFile(made/'autograder'/'1_dyck.zip') as z: assert f'proc-nb=={maker.version("proc-nb")}' in z.read('environment.yml').decode()
    recipe = (HERE/'Containerfile').read_text(encoding='utf-8')
    copied = [n for l in re.findall(r'^COPY (.+)$', recipe, re.M) for n in l.split()[:-1]]
    assert '-c constraints-dev.txt' in recipe and all((HERE.parent.parent/n).exists() for n in copied) and 'USER grader' in recipe
    assert {n for n in ('settings.ini', 'README.md', 'setup.py', 'pyproject.toml')} <= set(copied), 'setup.py reads them'

def test_renamed_answers_are_alike():
    one = """def rows(n):
    held = [0] * n
    for i in range(n): held[i] = held[i - 1] + i * i
    return sum(held) / max(held)"""
    other = "def rows(k):\n    return [x for x in range(k) if x % 7 == 3 and x % 5 or x > 100] + list('abc') * k"
    renamed = '# my own\n' + one.replace('held', 'mine').replace('i', 'j').replace('jn', 'in').replace('mjne', 'mine')
    found = grader.alike([row('a', code=one), row('b', code=renamed), row('c', code=other)])
    assert [(f['a'], f['b']) for f in found] == [('b', 'a')]

def test_the_page_for_reading_and_the_feedback(tmp_path):
    rows = [dict(row(n), words=['The question', f'I think {n} <b>']) for n in ('Ada', 'Bob', 'Eve')]
    page = grader.reading(rows)
    assert page.count('The question') == 0 and 'I think Ada &lt;b&gt;' in page
    assert 'one: 7 of 10 points\n    it is 3' in grader.feedback(rows[0])

@FULL
def test_a_process_that_dies(made, tmp_path):
    "An answer that takes the grader down with it is reported, and the next notebook is graded"
    (tmp_path/'in').mkdir()
    with pytest.raises(ValueError, match='cannot be graded'): graded(made, '1_dyck', tmp_path, DIES)
    (tmp_path/'answer.ipynb').rename(tmp_path/'in'/'a_dies.ipynb')
    (tmp_path/'in'/'b_blank.ipynb').write_bytes((made/'student'/'1_dyck.ipynb').read_bytes())
    grader.grade(made/'autograder'/'1_dyck.zip', tmp_path/'in', tmp_path/'out', limit=60)
    lines = table(tmp_path/'out')
    assert 'cannot be graded' in lines[0]['problem'] and lines[1]['name'] == 'b_blank' and lines[1]['total'] == '0'
