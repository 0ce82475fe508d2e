module muster/cluster/programs

go 1.24.0
