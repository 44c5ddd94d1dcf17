"""Results -> one HTML file: registrations, comparisons, evaluations, training runs, stores.

`sources` recognises what a path holds. A module for each kind turns it into a `Section` of
`pieces`: facts, tables, charts, pictures. `html` writes the page.
"""
