"""What can be checked of the site without Quarto: staging, listed pages, titles, links between pages, picture texts.
`--shots` also draws three staged pages with Chromium, light and dark, into `_artifacts`."""
import fnmatch, json, re, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r'(?<!!)\[[^\]]*\]\(([^)\s]+)\)')
SVG = re.compile(r'(<[^<>]*>)?\s*(<svg\b[^>]*>)') # a picture, and the tag it stands in
IMAGE = re.compile(r'!\[([^\]]*)\]\(([^)\s]+)\)|<img\b[^>]*>')

# nbdev stages pages only after it has made sure of Quarto, which it would download and install as root.
STAGE = 'import nbdev.quarto as q; q._ensure_quarto = lambda: None; q.nbdev_proc_nbs()'

def pages(): return [p.relative_to(ROOT) for d in ('nbs', 'nbs/explain', 'tutorials', 'tutorials/assignments') for p in sorted((ROOT/d).glob('*.ipynb'))]

def listed():
    "Patterns of pages that _quarto.yml renders or links to"
    text = (ROOT/'_quarto.yml').read_text(encoding='utf-8')
    return re.findall(r'^\s*-? ?(?:href: |contents: )?((?:nbs|tutorials)/\S+)\s*$', text, re.M)

def prose(page): return '\n'.join(''.join(c['source']) for c in json.loads((ROOT/page).read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown')

def title(page): return next((s for c in json.loads((ROOT/page).read_text(encoding='utf-8'))['cells'] if (s := ''.join(c['source'])).startswith('# ')), '')

def headings(page):
    "Ids that Quarto gives the headings of a page"
    found = re.findall(r'^#+ +(.+?)\s*$', prose(page), re.M)
    return {re.sub(r'^[^a-z]+', '', re.sub(r'[^\w\s.-]', '', h.lower()).replace(' ', '-')) for h in found}

def dead(page, link):
    "Does this link lead nowhere?"
    name, _, anchor = link.partition('#')
    there = (ROOT/page).parent/name if name else ROOT/page
    return not there.exists() or bool(anchor) and there.suffix == '.ipynb' and anchor not in headings(there)

def drawn(page):
    "The HTML of all stored outputs"
    outputs = [o.get('data', {}) for c in json.loads((ROOT/page).read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', [])]
    return '\n'.join(''.join(d[k]) for d in outputs for k in ('text/html', 'image/svg+xml', 'text/markdown') if k in d)

def unseen(page):
    "Cells that end in a picture but have no stored output"
    for c in json.loads((ROOT/page).read_text(encoding='utf-8'))['cells']:
        lines = ''.join(c['source']).strip().splitlines()
        if c['cell_type'] == 'code' and lines and lines[-1].startswith('show(') and not c['outputs']: yield lines[-1]

def wrong(page):
    "What is wrong with one page"
    text = prose(page)
    if not re.search(r'^# \S', text, re.M): yield 'has no title'
    if any(l.strip() and not l.startswith('>') for l in title(page).splitlines()[1:]): yield 'its first cell holds more than a title and a summary, and nbdev would drop the rest from the site'
    for link in LINK.findall(text):
        if not re.match(r'[a-z]+:', link) and dead(page, link): yield f'links to {link}, which is not there'
    for line in unseen(page): yield f'shows nothing for {line}'
    if any('alt=' not in i for i in re.findall(r'<img\b[^<>]*>', text + drawn(page))): yield 'has an <img> without a text'
    if any(not re.search('aria-(label="[^"]|hidden)', (a or '') + b) for a, b in SVG.findall(drawn(page))): yield 'shows a drawing without a text'
    for alt, target in (m.groups() for m in IMAGE.finditer(text) if m[2]):
        if not alt: yield f'picture {target} has no text'
        if not re.match(r'https?:', target) and not ((ROOT/page).parent/target).exists(): yield f'picture {target} is not there'

SHOTS = dict(home='nbs/index.ipynb', tutorial='tutorials/01_hello.ipynb', api='nbs/24_models.transfer.ipynb')
def as_html(page, theme):
    "A staged page as HTML, nearly as on the site: without what its directives hide"
    import nbformat
    from nbconvert import HTMLExporter
    nb = json.loads((ROOT/'_proc'/page).read_text(encoding='utf-8'))
    for c in nb['cells']:
        for k in set(c) - {'cell_type', 'id', 'metadata', 'source', 'outputs', 'execution_count'}: del c[k]
        source = ''.join(c['source'])
        c['metadata'] = dict(tags=[w for w, sign in (('no_source', 'echo: false'), ('no_cell', 'include: false'), ('no_cell', 'hide')) if re.search(rf'^#\| *{sign}', source, re.M)])
        c['source'] = re.sub(r'^#\|.*\n?', '', source, flags=re.M)
        if c['cell_type'] == 'raw': c.update(cell_type='markdown', source=''.join(f'# {m}\n' for m in re.findall('^title: (.+)', source, re.M)))
    tags = dict(enabled=True, remove_input_tags={'no_source'}, remove_cell_tags={'no_cell'})
    looks = dict(theme=theme, embed_images=True, mathjax_url='', require_js_url='', exclude_input_prompt=True, exclude_output_prompt=True)
    beside = dict(metadata=dict(path=str((ROOT/'_proc'/page).parent)))
    return HTMLExporter(**looks, config=dict(TagRemovePreprocessor=tags)).from_notebook_node(nbformat.reads(json.dumps(nb), 4), beside)[0]

def shots():
    "Pictures of three pages, light and dark; yields their paths"
    from lab_page import ARTEFACTS, chromium
    from playwright.sync_api import sync_playwright
    if not chromium(): sys.exit('--shots needs Chromium: set CHROMIUM, or install it')
    ARTEFACTS.mkdir(exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=['--no-sandbox', '--disable-gpu'])
        for name, theme in ((n, t) for n in SHOTS for t in ('light', 'dark')):
            tab = browser.new_page(viewport=dict(width=1000, height=800), color_scheme=theme)
            tab.route('http*://**', lambda route: route.abort())
            tab.set_content(as_html(SHOTS[name], theme))
            tab.screenshot(path=ARTEFACTS/f'page_{name}_{theme}.png', full_page=True)
            yield ARTEFACTS/f'page_{name}_{theme}.png'

def main():
    subprocess.run([sys.executable, '-c', STAGE], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    found = [f'{p}: {w}' for p in pages() for w in wrong(p)]
    found += [f'_quarto.yml: {g} matches no page' for g in listed() if not any(fnmatch.fnmatch(str(p), g) for p in pages())]
    found += [f'_quarto.yml does not list {p}' for p in pages() if not any(fnmatch.fnmatch(str(p), g) for g in listed())]
    found += [f'{p} was not staged' for p in pages() if not (ROOT/'_proc'/p).exists() and not list((ROOT/'_proc').rglob(p.name))]
    found += [f'{c} was not staged' for c in re.findall(r'^ *css: (\S+)', (ROOT/'_quarto.yml').read_text(encoding='utf-8'), re.M) if not (ROOT/'_proc'/c).exists()]
    print('\n'.join(found) or f'{len(pages())} pages staged; listing, titles, links and pictures are in order')
    if '--shots' in sys.argv: print(*shots(), sep='\n')
    return bool(found)

if __name__ == '__main__': sys.exit(main())
