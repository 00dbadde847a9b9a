"""What a model says, taken apart while it is still being said.

- ``tags.py``       ``TagSplitter``: text between an opening and a closing tag, and outside.
- ``reasoning.py``  ``ReasoningParser``: thoughts and answer.
- ``tools.py``      ``ToolParser``: answer and tool calls, in the formats of the model families.
- ``tool_bodies.py``  what stands between the tags of a tool call, per format.

Text arrives in pieces that may end anywhere, in the middle of a tag too. The result does not depend
on where.
"""
