"""Reactions whose atom-to-atom maps are known, as inputs of a reaction transformer.

Molecules are joined from fragments by textbook reactions, so that every atom of the product is
known to come from one of the reactants.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUMBERS = {"C": 6, "N": 7, "O": 8, "F": 9, "S": 16, "Cl": 17, "Br": 35, "B": 5}
VALENCES = {"C": 4, "N": 3, "O": 2, "F": 1, "S": 2, "Cl": 1, "Br": 1, "B": 3}

# Chains and rings in SMILES without aromaticity; the atom that joins is the first one.
BODIES = (
    "CC CCC C(C)C CCCC CC(C)C C1CC1 C1CCCC1 C1CCCCC1 C1CCOCC1 CCO CCOC CCF CCCl CC(F)(F)F"
    " C1=CC=CC=C1 C1=CC=CC=N1 C1=CN=CC=C1 C1=CC=CS1 C1=CC=CO1 C1=CC=C(F)C=C1 C1=CC=C(Cl)C=C1"
    " C1=CC=C(OC)C=C1 C1=CC=C(C)C=C1 C1=CC=CC(C)=C1 C1=CC(F)=CC=C1 C1=CC=C(C#N)C=C1"
    " C1=CC=C2C=CC=CC2=C1 CC1=CC=CC=C1 CCC1=CC=CC=C1 CC1=CC=CC=N1 CC1=CC=C(F)C=C1"
    " CC1CCCCC1 C1=CC=C(C(F)(F)F)C=C1 C1=CC(OC)=C(OC)C=C1 C1=CC=C(N(C)C)C=C1 CCN1CCOCC1"
).split()

# What hangs on the bodies before and after; $1 and $2 are bodies, numbers name the joined atoms.
# Reactant 1, reactant 2, product: lists of (atom, element) and bonds between their names.
Part = tuple[dict[str, str], list[tuple[str, str, int]]]
TEMPLATES: dict[str, tuple[list[Part], Part]] = {
    "amide": (
        [
            (
                {"c": "C", "o": "O", "x": "O"},
                [("1", "c", 1), ("c", "o", 2), ("c", "x", 1)],
            ),
            ({"n": "N"}, [("2", "n", 1)]),
        ],
        (
            {"c": "C", "o": "O", "n": "N"},
            [("1", "c", 1), ("c", "o", 2), ("c", "n", 1), ("n", "2", 1)],
        ),
    ),
    "acid chloride": (
        [
            (
                {"c": "C", "o": "O", "x": "Cl"},
                [("1", "c", 1), ("c", "o", 2), ("c", "x", 1)],
            ),
            ({"n": "N"}, [("2", "n", 1)]),
        ],
        (
            {"c": "C", "o": "O", "n": "N"},
            [("1", "c", 1), ("c", "o", 2), ("c", "n", 1), ("n", "2", 1)],
        ),
    ),
    "ester": (
        [
            (
                {"c": "C", "o": "O", "x": "O"},
                [("1", "c", 1), ("c", "o", 2), ("c", "x", 1)],
            ),
            ({"y": "O"}, [("2", "y", 1)]),
        ],
        (
            {"c": "C", "o": "O", "y": "O"},
            [("1", "c", 1), ("c", "o", 2), ("c", "y", 1), ("y", "2", 1)],
        ),
    ),
    "ether": (
        [({"x": "Br"}, [("1", "x", 1)]), ({"y": "O"}, [("2", "y", 1)])],
        ({"y": "O"}, [("1", "y", 1), ("y", "2", 1)]),
    ),
    "amine": (
        [({"x": "Br"}, [("1", "x", 1)]), ({"n": "N"}, [("2", "n", 1)])],
        ({"n": "N"}, [("1", "n", 1), ("n", "2", 1)]),
    ),
    "coupling": (
        [
            ({"x": "Br"}, [("1", "x", 1)]),
            (
                {"b": "B", "u": "O", "v": "O"},
                [("2", "b", 1), ("b", "u", 1), ("b", "v", 1)],
            ),
        ],
        ({}, [("1", "2", 1)]),
    ),
}


@dataclass
class Molecule:
    """Atoms and bonds.

    Attributes:
        elements: Symbol of each atom.
        bonds: Neighbour → order for each atom.
    """

    elements: list[str]
    bonds: list[dict[int, int]]

    def add(self, element: str) -> int:
        """A new atom."""
        self.elements.append(element)
        self.bonds.append({})
        return len(self.elements) - 1

    def bond(self, one: int, other: int, order: int) -> None:
        """A new bond."""
        self.bonds[one][other] = self.bonds[other][one] = order

    def neighbours(self) -> list[int]:
        """Of each atom, hydrogens included."""
        pairs = zip(self.elements, self.bonds, strict=True)
        return [len(ties) + max(VALENCES[e] - sum(ties.values()), 0) for e, ties in pairs]

    def distances(self) -> NDArray[np.int64]:
        """Bonds between every two atoms."""
        size = len(self.elements)
        found = np.full((size, size), -1, np.int64)
        for start in range(size):
            found[start, start] = 0
            queue = deque([start])
            while queue:
                atom = queue.popleft()
                for other in self.bonds[atom]:
                    if found[start, other] < 0:
                        found[start, other] = found[start, atom] + 1
                        queue.append(other)
        return found

    def classes(self) -> list[int]:
        """Equal numbers for atoms that stand alike (colours of Weisfeiler & Leman 1968).

        The orders of bonds don't count: in a ring of alternating bonds both sides are alike.
        """
        pairs = zip(self.elements, self.neighbours(), strict=True)
        colours = [100 * NUMBERS[element] + around for element, around in pairs]
        for _ in self.elements:
            seen = [
                (own, tuple(sorted(colours[other] for other in ties)))
                for own, ties in zip(colours, self.bonds, strict=True)
            ]
            names = {key: number for number, key in enumerate(sorted(set(seen)))}
            colours = [names[key] for key in seen]
        return colours


def parse(smiles: str) -> Molecule:
    """A molecule from SMILES of plain atoms, bonds, branches and rings of one digit."""
    molecule, stack, rings = Molecule([], []), list[int](), dict[str, tuple[int, int]]()
    last, order, position = -1, 1, 0
    while position < len(smiles):
        symbol = smiles[position]
        if smiles[position : position + 2] in ("Cl", "Br"):
            symbol = smiles[position : position + 2]
        position += len(symbol)
        if symbol in "=#":
            order = 2 if symbol == "=" else 3
        elif symbol == "(":
            stack.append(last)
        elif symbol == ")":
            last = stack.pop()
        elif symbol.isdigit() and symbol in rings:
            other, before = rings.pop(symbol)
            molecule.bond(last, other, max(order, before))
            order = 1
        elif symbol.isdigit():
            rings[symbol] = (last, order)
            order = 1
        else:
            atom = molecule.add(symbol)
            if last >= 0:
                molecule.bond(last, atom, order)
            last, order = atom, 1
    return molecule


@dataclass(frozen=True)
class Reaction:
    """A reaction as the model reads it.

    Attributes:
        name: Template and bodies.
        feeds: Arrays by input name, with a batch axis of 1.
        reactants: Positions of the reactants' atoms in the row of tokens.
        products: Positions of the products' atoms.
        truth: For every atom of the product, which atoms of the reactants it may come from.
    """

    name: str
    feeds: dict[str, NDArray[np.int64]]
    reactants: NDArray[np.int64]
    products: NDArray[np.int64]
    truth: NDArray[np.bool_]


def reaction(template: str, one: str, two: str, rng: np.random.Generator) -> Reaction:
    """Make a reaction; the atoms of its molecules are in random order."""
    parts, product = TEMPLATES[template]
    built = [_build(part, [one, two]) for part in parts]
    target, names = _build(product, [one, two])
    order = rng.permutation(len(target.elements))
    target, names = _reordered(target, order), [names[atom] for atom in order]
    atoms, neighbours, roles = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)], [1]
    blocks, sources, classes = [], list[str](), list[tuple[int, int]]()
    for number, (molecule, own) in enumerate([*built, (target, names)]):
        atoms.append(np.array([1, *(NUMBERS[e] + 2 for e in molecule.elements)], np.int64))
        shown = np.minimum(molecule.neighbours(), 14) + 2
        neighbours.append(np.concatenate([[0], shown]).astype(np.int64))
        block = np.ones((len(own) + 1, len(own) + 1), np.int64)
        block[1:, 1:] = np.minimum(molecule.distances(), 10) + 2
        blocks.append(block)
        roles += [0, *[3 if number == len(built) else 2] * len(own)]
        if number < len(built):
            sources += own
            classes += [(number, colour) for colour in molecule.classes()]
    total = len(roles)
    distances = np.zeros((total, total), np.int64)
    distances[0, 0] = 1
    start = 1
    for block in blocks:
        distances[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    row = np.array(roles, np.int64)
    feeds = {"atoms": np.concatenate(atoms), "neighbors": np.concatenate(neighbours)}
    feeds |= {"distances": distances, "roles": row}
    truth = [[classes[sources.index(name)] == colour for colour in classes] for name in names]
    return Reaction(
        f"{template}: {one} {two}",
        {name: array[None] for name, array in feeds.items()},
        np.flatnonzero(row == 2),
        np.flatnonzero(row == 3),
        np.array(truth, np.bool_),
    )


def _build(part: Part, bodies: list[str]) -> tuple[Molecule, list[str]]:
    """A molecule, and for every atom a name that is the same before and after the reaction."""
    elements, bonds = part
    molecule, names = Molecule([], []), list[str]()
    places: dict[str, int] = {}
    for place in sorted({end for bond in bonds for end in bond[:2]} | set(elements)):
        places[place] = len(names)
        if place in elements:
            molecule.add(elements[place])
            names.append(place)
            continue
        body = parse(bodies[int(place) - 1])
        for element in body.elements:
            molecule.add(element)
            names.append(f"{place}.{len(names) - places[place]}")
        for atom, ties in enumerate(body.bonds):
            for other, order in ties.items():
                molecule.bond(places[place] + atom, places[place] + other, order)
    for start, end, order in bonds:
        molecule.bond(places[start], places[end], order)
    return molecule, names


def _reordered(molecule: Molecule, order: NDArray[np.int64]) -> Molecule:
    rank = {int(old): new for new, old in enumerate(order)}
    bonds = [{rank[o]: n for o, n in molecule.bonds[old].items()} for old in order]
    return Molecule([molecule.elements[old] for old in order], bonds)
