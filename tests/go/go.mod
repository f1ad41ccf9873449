module gardener/parserclient

go 1.20
