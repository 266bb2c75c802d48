"""Instruction data made up by a language model or any other source: asked for, sieved, voted on.

Light: scikit-learn, datasketch and dp-accounting are imported when they are used.
"""

from llm_tools.synthesis.embedding import Embedding, tfidf_svd
from llm_tools.synthesis.figures import diversity, leakage, likeness
from llm_tools.synthesis.filters import Fault, Rules, Sieve
from llm_tools.synthesis.generation import Drawn, Made, Source, Writer, WriterFailed, fill_up
from llm_tools.synthesis.rows import Brief, Row
from llm_tools.synthesis.texts import Protected
from llm_tools.synthesis.voting import Election, epsilon, evolve, noise_for

__all__ = [
    "Brief",
    "Drawn",
    "Election",
    "Embedding",
    "Fault",
    "Made",
    "Protected",
    "Row",
    "Rules",
    "Sieve",
    "Source",
    "Writer",
    "WriterFailed",
    "diversity",
    "epsilon",
    "evolve",
    "fill_up",
    "leakage",
    "likeness",
    "noise_for",
    "tfidf_svd",
]
