"""Parts of jobs in Protenix's JSON."""

SEQUENCE = "MKTAYIAKQR"


def protein(**more):
    return {"proteinChain": {"sequence": SEQUENCE, "count": 1, **more}}


def ligand(text, **more):
    return {"ligand": {"ligand": text, "count": 1, **more}}


def bond(**more):
    return {"entity1": 1, "position1": 3, "atom1": "CA", "entity2": 2, "position2": 1, "atom2": "PG", **more}


def job(*sequences, **more):
    return [{"name": "a", "sequences": list(sequences), **more}]
