"""Where somebody looks on and answers: sliders and chats in JupyterLab, the `frugal` command in a terminal.

Enters: what takes a user's input. What it asks for is computed in other rooms.
Names: `explore`, `chat_widget`, and the commands of `frugal`.
"""
