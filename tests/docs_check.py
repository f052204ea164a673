"What can be checked of the site without Quarto: staging, listed pages, titles, links between pages, picture texts."
import fnmatch, json, re, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r'(?<!!)\[[^\]]*\]\(([^)\s]+)\)')
IMAGE = re.compile(r'!\[([^\]]*)\]\(([^)\s]+)\)|<img\b[^>]*>')

# nbdev stages pages only after it has made sure of Quarto, which it would download and install as root.
STAGE = 'import nbdev.quarto as q; q._ensure_quarto = lambda: None; q.nbdev_proc_nbs()'

def pages(): return [p.relative_to(ROOT) for d in ('nbs', 'nbs/explain', 'tutorials', 'tutorials/assignments') for p in sorted((ROOT/d).glob('*.ipynb'))]

def listed():
    "Patterns of pages that _quarto.yml renders or links to"
    text = (ROOT/'_quarto.yml').read_text()
    return re.findall(r'^\s*-? ?(?:href: |contents: )?((?:nbs|tutorials)/\S+)\s*$', text, re.M)

def prose(page): return '\n'.join(''.join(c['source']) for c in json.loads((ROOT/page).read_text())['cells'] if c['cell_type'] == 'markdown')

def title(page): return next((s for c in json.loads((ROOT/page).read_text())['cells'] if (s := ''.join(c['source'])).startswith('# ')), '')

def unseen(page):
    "Cells that end in a picture but have no stored output"
    for c in json.loads((ROOT/page).read_text())['cells']:
        lines = ''.join(c['source']).strip().splitlines()
        if c['cell_type'] == 'code' and lines and lines[-1].startswith('show(') and not c['outputs']: yield lines[-1]

def wrong(page):
    "What is wrong with one page"
    text = prose(page)
    if not re.search(r'^# \S', text, re.M): yield 'has no title'
    if any(l.strip() and not l.startswith('>') for l in title(page).splitlines()[1:]): yield 'its first cell holds more than a title and a summary, and nbdev would drop the rest from the site'
    for link in LINK.findall(text):
        if re.match(r'[a-z]+:|#', link): continue
        if not ((ROOT/page).parent/link.split('#')[0]).exists(): yield f'links to {link}, which is not there'
    for line in unseen(page): yield f'shows nothing for {line}'
    if any('alt=' not in i for i in re.findall(r'<img\b[^>]*>', text)): yield 'has an <img> without a text'
    for alt, target in (m.groups() for m in IMAGE.finditer(text) if m[2]):
        if not alt: yield f'picture {target} has no text'
        if not re.match(r'https?:', target) and not ((ROOT/page).parent/target).exists(): yield f'picture {target} is not there'

def main():
    subprocess.run([sys.executable, '-c', STAGE], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    found = [f'{p}: {w}' for p in pages() for w in wrong(p)]
    found += [f'_quarto.yml: {g} matches no page' for g in listed() if not any(fnmatch.fnmatch(str(p), g) for p in pages())]
    found += [f'_quarto.yml does not list {p}' for p in pages() if not any(fnmatch.fnmatch(str(p), g) for g in listed())]
    found += [f'{p} was not staged' for p in pages() if not (ROOT/'_proc'/p).exists() and not list((ROOT/'_proc').rglob(p.name))]
    print('\n'.join(found) or f'{len(pages())} pages staged; listing, titles, links and pictures are in order')
    return bool(found)

if __name__ == '__main__': sys.exit(main())
