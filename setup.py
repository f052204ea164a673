"Hands the build what `settings.ini` is the home of, and the README with links that lead somewhere from the package index."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

def read(name): return Path(__file__).with_name(name).read_text(encoding='utf-8')

def absolute(text, repository, branch='main'):
    "Links and pictures that are relative to the repository, made absolute"
    raw = repository.replace('github.com', 'raw.githubusercontent.com')
    text = re.sub(r'(!\[[^\]]*\]\()(?!\w+:|#)', rf'\1{raw}/{branch}/', text)
    return re.sub(r'\]\((?!\w+:|#)', f']({repository}/blob/{branch}/', text)

cfg = ConfigParser(delimiters=['='])
cfg.read_string(read('settings.ini'))
defaults, extras = cfg['DEFAULT'], {k: v.split() for k, v in cfg['extras'].items() if k not in cfg.defaults()}
repository = re.search(r'^Repository = "(.+)"', read('pyproject.toml'), re.M)[1]
setup(version=defaults['version'], python_requires=f">={defaults['min_python']}",
    install_requires=defaults['requirements'].split(), extras_require=extras,
    long_description=absolute(read('README.md'), repository), long_description_content_type='text/markdown')
