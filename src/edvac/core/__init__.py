"""The bus: the nouns that every other part of edvac shares.

Values and their labels, schemas, events, the error tree and the seams to the outside (clock, disk,
randomness, names). Knows nothing of programs, devices, models or databases, and imports no sibling
package.
"""
