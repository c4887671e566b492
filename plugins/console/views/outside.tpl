<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{{title}} · Orkosi</title>
<meta name="color-scheme" content="light dark"><link rel="icon" href="{{assets}}/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="{{assets}}/console.css"></head>
<body class="door"><main>
