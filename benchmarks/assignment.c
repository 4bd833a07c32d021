/* The least-cost assignment of rows to columns in a sparse table, where a row may stay alone at a price.
 *
 * Successive shortest augmenting paths with potentials (Jonker and Volgenant 1987), each found by Dijkstra's algorithm
 * with a heap, so that a path costs what it touches and not the whole table. u[i] + v[j] <= cost[i, j], u[i] <= alone
 * and v[j] <= 0 throughout, with equality where i and j are paired, i is alone, or j is free: so the result is optimal.
 *
 * first: [rows + 1], columns and costs: [first[rows]], partner: [rows], what is found, -1 for alone.
 * Returns 0, or 1 where memory ran out.
 */
#include <stdlib.h>

typedef struct {
    double distance;
    int column;
} Entry;

static void push(Entry *heap, int *size, double distance, int column) {
    int place = (*size)++;
    while (place && heap[(place - 1) / 2].distance > distance) {
        heap[place] = heap[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    heap[place] = (Entry){distance, column};
}

static Entry pop(Entry *heap, int *size) {
    Entry top = heap[0], last = heap[--*size];
    int place = 0;
    for (;;) {
        int child = 2 * place + 1;
        if (child >= *size) break;
        if (child + 1 < *size && heap[child + 1].distance < heap[child].distance) child++;
        if (heap[child].distance >= last.distance) break;
        heap[place] = heap[child];
        place = child;
    }
    heap[place] = last;
    return top;
}

int assign(int rows, int count, const int *first, const int *columns, const double *costs, double alone, int *partner) {
    double *u = calloc(rows + 1, sizeof *u), *v = calloc(count + 1, sizeof *v), *distance = malloc((count + 1) * sizeof *distance);
    int *owner = malloc((count + 1) * sizeof *owner), *from = malloc((count + 1) * sizeof *from);
    int *seen = calloc(count + 1, sizeof *seen), *done = calloc(count + 1, sizeof *done), *order = malloc((count + 1) * sizeof *order);
    Entry *heap = malloc((first[rows] + 1) * sizeof *heap);
    int failed = !(u && v && distance && owner && from && seen && done && order && heap);
    for (int j = 0; !failed && j < count; j++) owner[j] = -1;
    for (int i = 0; !failed && i < rows; i++) partner[i] = -1;
    for (int source = 0; !failed && source < rows; source++) {
        int size = 0, scanned = 0, row = source, end = -1, stays = source, stamp = source + 1;
        double reached = 0, best = alone - u[source]; /* the cheapest way for some row of the tree to stay alone */
        for (;;) {
            for (int k = first[row]; k < first[row + 1]; k++) {
                int j = columns[k];
                double length = reached + costs[k] - u[row] - v[j];
                if (done[j] != stamp && (seen[j] != stamp || length < distance[j]) && length < best) {
                    seen[j] = stamp;
                    distance[j] = length;
                    from[j] = row;
                    push(heap, &size, length, j);
                }
            }
            Entry next = {0, -1};
            while (size) {
                next = pop(heap, &size);
                if (done[next.column] != stamp) break;
                next.column = -1;
            }
            if (next.column < 0 || next.distance >= best) break;
            reached = next.distance;
            if (owner[next.column] < 0) {
                end = next.column;
                best = reached;
                break;
            }
            done[next.column] = stamp;
            order[scanned++] = next.column;
            row = owner[next.column];
            if (reached + alone - u[row] < best) {
                best = reached + alone - u[row];
                stays = row;
            }
        }
        u[source] += best;
        for (int k = 0; k < scanned; k++) {
            int j = order[k];
            u[owner[j]] += best - distance[j];
            v[j] -= best - distance[j];
        }
        if (end < 0 && stays != source) { /* the row that stays alone gives up its column */
            end = partner[stays];
            partner[stays] = -1;
        } else if (end < 0) {
            continue;
        }
        for (;;) {
            int taker = from[end], given = partner[taker];
            owner[end] = taker;
            partner[taker] = end;
            if (taker == source) break;
            end = given;
        }
    }
    free(u), free(v), free(distance), free(owner), free(from), free(seen), free(done), free(order), free(heap);
    return failed;
}
