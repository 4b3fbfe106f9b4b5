"""Which identities show the same person, which show the same footage, and who is held out.

These decisions are functions of all identities together, so they are made after curation, from a columnar summary
of its results, and do not depend on the order in which videos were finished.
"""
