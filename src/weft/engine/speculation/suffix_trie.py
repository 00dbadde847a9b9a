"""``SuffixTrie``: every suffix of what was appended, how often each occurred, what followed.

A substring that occurred once is not spelt out: its node says where it lies in the text, and is
opened by one level when the same substring comes again (as the leaves of a suffix tree, Ukkonen
1995). So a text without repetitions takes one node per token, and appending a token touches as many
nodes as there are suffixes that occurred before, at most ``max_depth``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# Stands between documents: nothing is continued across it.
END = -1


class Node:
    """A substring.

    Attributes:
        count: How often it occurred.
        place: Where its last token lies in the text while it occurred once; -1 once it is opened.
        children: What followed it, by token, once it is opened.
    """

    __slots__ = ("children", "count", "place")

    def __init__(self, place: int) -> None:
        self.count = 1
        self.place = place
        self.children: dict[int, Node] = {}


class Cursor:
    """A substring that may end inside of one that is not spelt out.

    Attributes:
        node: The node reached.
        place: Where it ends in the text; -1 at a node that is opened.
    """

    __slots__ = ("node", "place")

    def __init__(self, node: Node, place: int) -> None:
        self.node = node
        self.place = place


class SuffixTrie:
    """All suffixes of one or several texts.

    Args:
        max_depth: Longer substrings are not told apart.

    Attributes:
        text: All tokens, with ``END`` behind each document.
    """

    def __init__(self, max_depth: int) -> None:
        self.text: list[int] = []
        self._max_depth = max_depth
        self._root = Node(-1)
        self._root.count = 0
        # The suffixes of the present that occurred before, longest first.
        self._repeated: list[Node] = []

    def append(self, token: int) -> None:
        """Continue the document."""
        place = len(self.text)
        self.text.append(token)
        self._root.count += 1
        repeated = []
        # The longest is as deep as there are others; the root adds one level.
        for node in (*self._repeated[len(self._repeated) >= self._max_depth :], self._root):
            child = node.children.get(token)
            if child is None:
                node.children[token] = Node(place)
            else:
                self._open(child)
                child.count += 1
                repeated.append(child)
        self._repeated = repeated

    def end_document(self) -> None:
        """Say that what comes next does not continue what came before."""
        self.text.append(END)
        self._repeated = []

    def add_document(self, tokens: Iterable[int]) -> None:
        """Append a whole document."""
        for token in tokens:
            self.append(token)
        self.end_document()

    def repeated(self) -> list[tuple[int, Cursor]]:
        """Return as (length, where) the suffixes of the present that occurred before.

        Longest first; what followed those of ``max_depth`` tokens is not counted.
        """
        nodes = self._repeated[len(self._repeated) >= self._max_depth :]
        return [(len(nodes) - i, Cursor(node, -1)) for i, node in enumerate(nodes)]

    def advance(self, cursors: Iterable[Cursor], token: int) -> list[Cursor]:
        """Return where suffixes of another text are one token later, the empty suffix added."""
        moved = []
        for cursor in (*cursors, Cursor(self._root, -1)):
            for follower, _, behind in self.followers(cursor):
                if follower == token:
                    moved.append(behind)
                    break
        return moved[1 - self._max_depth :]

    def followers(self, cursor: Cursor) -> Iterator[tuple[int, float, Cursor]]:
        """Yield (token, share, where it leads) of all that followed a substring."""
        if cursor.place >= 0:
            place = cursor.place + 1
            if place < len(self.text) and self.text[place] != END:
                yield self.text[place], 1.0, Cursor(cursor.node, place)
            return
        children = cursor.node.children
        total = sum(child.count for child in children.values())
        for token, child in children.items():
            yield token, child.count / total, Cursor(child, child.place)

    def _open(self, node: Node) -> None:
        """Spell out what followed the one occurrence of a node."""
        if node.place < 0:
            return
        place = node.place + 1
        if place < len(self.text) and self.text[place] != END:
            node.children[self.text[place]] = Node(place)
        node.place = -1
