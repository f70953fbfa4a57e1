"""Answering: passages, prompts, citations, and the pipeline from a question to its answer.

Retrieval and the model are reached through protocols only (`Retriever`, `ChatModel`).
"""

from vecdb.rag.chunk import Heading, Passage, split_passages
from vecdb.rag.cite import cite
from vecdb.rag.pipeline import AnswerEvents, AnswerOptions, ChatModel, answer
from vecdb.rag.prompt import NO_ANSWER, Prompt, pack
from vecdb.rag.retrieve import CollectionRetriever, Relevance, Retriever, relevant_hits

__all__ = [
    "NO_ANSWER",
    "AnswerEvents",
    "AnswerOptions",
    "ChatModel",
    "CollectionRetriever",
    "Heading",
    "Passage",
    "Prompt",
    "Relevance",
    "Retriever",
    "answer",
    "cite",
    "pack",
    "relevant_hits",
    "split_passages",
]
