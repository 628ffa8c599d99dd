"""One form for every model: read it safely, turn it into modules, write it down.

source file --importing (restricted child)--> canonical .pt2 --archive--> program --modules--> graph
"""
