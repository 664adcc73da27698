# SPDX-License-Identifier: BSD-2-Clause
# Draws what bench-report has written: gnuplot -e "data = 'FILE'; picture = 'FILE.svg'" bench.gnuplot
set terminal svg size 1000,560 font "sans-serif,13" background rgb "white"
set output picture
set datafile separator "\t"
set title "CPU time of the server for each operation, relative to an epoll loop behind the same dispatch program"
set xlabel "workload"
set ylabel "relative CPU time (less is better)"
# The servers that fork need far more than the others. The lower end of the bars has no meaning.
set logscale y
set yrange [0.5:*]
set ytics (0.5, 0.7, 1, 1.4, 2, 4, 8, 16, 32, 64, 128)
set grid ytics linetype 1 linecolor rgb "#e0e0e0"
set xrange [-0.6:3.6]
set key outside center top horizontal maxrows 2
set border 3
set tics nomirror
set style data histograms
set style histogram clustered gap 1
set style fill solid 1 noborder
# As many as bench-report draws.
array colour[7] = ["#0072b2", "#999999", "#56b4e9", "#f0e442", "#e69f00", "#009e73", "#cc79a7"]
plot for [i = 1:7] data using (column(i + 1)):xtic(1) linecolor rgb colour[i] title columnheader(i + 1), \
     1 with lines linecolor rgb "black" title "the floor, behind dispatch"
