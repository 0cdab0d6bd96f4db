"""The assignment problem: pairs the rows of a square matrix with its columns so that the sum is largest."""

from __future__ import annotations

import math
from collections.abc import Sequence


def best_assignment(values: Sequence[Sequence[float]]) -> list[int]:
    """Finds the assignment with the largest sum, and returns the column of each row.

    The Hungarian method with shortest augmenting paths (Jonker and Volgenant, Computing 38, 1987), in O(n^3). Rows are
    added one by one. Prices of rows and columns keep the reduced costs of all pairs at 0 or above, and those of the
    chosen pairs at 0.

    Args:
        values: n rows of n finite numbers.

    Raises:
        ValueError: the matrix is not square.
    """
    size = len(values)
    if any(len(row) != size for row in values):
        raise ValueError(f"the matrix has {size} rows, and not each has {size} values")
    row_price, column_price = [0.0] * size, [0.0] * size
    row_of: list[int | None] = [None] * size
    for start in range(size):
        distance = [math.inf] * size
        before: list[int | None] = [None] * size
        visited = [False] * size
        row, column = start, None
        reached = 0.0
        while True:
            nearest, nearest_distance = -1, math.inf
            for other in range(size):
                if visited[other]:
                    continue
                through = reached - values[row][other] - row_price[row] - column_price[other]
                if through < distance[other]:
                    distance[other], before[other] = through, column
                if distance[other] < nearest_distance:
                    nearest, nearest_distance = other, distance[other]
            column, reached = nearest, nearest_distance
            visited[column] = True
            occupant = row_of[column]
            if occupant is None:
                break
            row = occupant
        row_price[start] += reached
        for other in range(size):
            occupant = row_of[other]
            if visited[other] and occupant is not None:
                row_price[occupant] += reached - distance[other]
                column_price[other] -= reached - distance[other]
        while column is not None:  # exchange the pairs along the path
            previous = before[column]
            row_of[column] = start if previous is None else row_of[previous]
            column = previous
    columns = [0] * size
    for column, occupant in enumerate(row_of):
        assert occupant is not None
        columns[occupant] = column
    return columns
